/* json_schema - a JSON schema as a grammar (GBNF text, see grammar.h) of JSON texts that it allows.
 * Sound, not complete: every text of the grammar is valid; not every valid text is in it. Members come in the order of `properties`; without
 * additionalProperties an object with properties has no others, without items a list with prefixItems no more. A schema without type is taken for the
 * one type that its keywords speak of. Keywords: type enum const properties required additionalProperties minProperties maxProperties items prefixItems
 * additionalItems minItems maxItems minLength maxLength pattern format (date time date-time uuid) minimum maximum exclusiveMinimum exclusiveMaximum anyOf
 * oneOf (of alternatives that exclude each other) allOf $ref (inside the document) nullable; annotations. Any other keyword is refused by name and place.
 * Regular expressions: ECMA 262 without look-around, references, \b, \p, named groups and flags. */
#pragma once
#include "ggml-like/json.h"

/* json_schema_to_gbnf - *out: NUL-terminated, from mem_alloc; the caller's. name: in messages. ERR_USAGE naming keyword and path ("NAME: #/properties/a:
 * keyword 'not' is not supported"), also for schemas that no text can satisfy and for more than 4 MiB of grammar; ERR_MEMORY. */
status json_schema_to_gbnf(char **out, const struct json *schema, const char *name, struct err *e) MUST_USE;
