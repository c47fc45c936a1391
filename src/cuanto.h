/* cuanto - everything a program needs to run models with this library. An umbrella: each header below is a contract of its own.
 *
 *   struct model *m;  struct engine *en;  struct session *s;
 *   model_open(&m, "file.gguf", &(struct model_options){ 0 }, &e);      weights mapped, tokenizer and template ready
 *   engine_open(&en, m, &(struct engine_options){ 0 }, &e);             threads, kernels, scratch
 *   session_open(&s, en, &(struct session_options){ .n_ctx = 4096 }, &e);  one conversation: its KV cache and position
 *   tokenizer_encode(...); engine_forward(...); sampler_sample(...); */
#pragma once
#include "src/adapter_write.h"
#include "src/beam.h"
#include "src/chat.h"
#include "src/dry.h"
#include "src/engine.h"
#include "src/lookup.h"
#include "src/lora.h"
#include "src/merge.h"
#include "src/grammar.h"
#include "src/layers.h"
#include "src/fold.h"
#include "src/rotate.h"
#include "src/json_schema.h"
#include "src/model.h"
#include "src/optim.h"
#include "src/sampler.h"
#include "src/template.h"
#include "src/tokenizer.h"
#include "src/trainer.h"
