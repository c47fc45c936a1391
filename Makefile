# cuanto: `make help` lists the targets.
config ?= release
CC ?= cc
PREFIX ?= /usr/local
B := build/$(config)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla -Wundef \
  -Wno-unused-parameter -Wno-missing-field-initializers
CFLAGS_COMMON := -std=c11 -D_GNU_SOURCE -I. -g -fno-math-errno -ffp-contract=off $(WARN)
CFLAGS_release := -O2
CFLAGS_debug := -O0
CFLAGS_scalar := -O2 -DCUANTO_SCALAR=1
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -fsanitize=thread
CFLAGS_arm := -O2
ifeq ($(config),arm)
  override CC := aarch64-linux-gnu-gcc
  LDFLAGS += -static
  RUN := qemu-aarch64
endif
ifeq ($(CFLAGS_$(config)),)
  $(error config=$(config) is unknown: release debug scalar asan tsan arm)
endif
# Builds that a macro makes differ from the release build in the files that see it: OWN, theirs; all other objects are those of the release build.
OWN_scalar := ggml-like/cpu.c quant/quantizer.c
OWN ?= $(OWN_$(config))
COMMON := $(if $(OWN),build/release,$(B))
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
ALL_CFLAGS = $(CFLAGS_COMMON) $(CFLAGS_$(config)) $(CFLAGS)
LIBS := -lm -lpthread
# One short line per step; V=1 shows the commands. `make -s` shows neither.
show = $(if $(V),,@$(if $(findstring s,$(firstword -$(MAKEFLAGS))),,printf '  %-4s %s\n' $(1) $@;))

# The first line of an ISA file says where and how it is compiled:  /* arch: x86_64  cflags: -mavx2 -mfma -mf16c */
ISA := $(foreach f,$(wildcard ggml-like/kernels/isa_*.c quant/isa_*.c),$(if $(findstring arch: $(MACHINE) ,$(shell head -n 1 $(f))),$(f)))
LIB := $(filter-out ggml-like/kernels/isa_% quant/isa_%,$(wildcard ggml-like/*.c ggml-like/*/*.c src/*.c src/*/*.c quant/*.c)) $(ISA)
TOOLS := $(wildcard tools/*.c)
TESTS := $(wildcard tests/*.c)
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
obj = $(foreach f,$(1:.c=),$(if $(filter $(OWN:.c=),$(f)),$(B),$(COMMON))/$(f).o)

all: $(B)/cuanto

$(B)/libcuanto.a: $(call obj,$(LIB))
	@rm -f $@
	$(call show,AR) ar rcs $@ $^
$(B)/cuanto: $(call obj,$(TOOLS)) $(B)/libcuanto.a
	$(call show,LINK) $(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
	@test $@ != build/release/cuanto || ln -sf $@ cuanto
# Tests link everything but main.
$(B)/test: $(call obj,$(TESTS) $(filter-out tools/main.c,$(TOOLS))) $(B)/libcuanto.a
	$(call show,LINK) $(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/fuzz_%: $(COMMON)/tests/fuzz/fuzz_%.o $(COMMON)/tests/fuzz/replay.o $(B)/libcuanto.a
	$(call show,LINK) $(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# Programs that the scripts in tests/oracle drive.
$(B)/%: tests/oracle/%.c $(B)/libcuanto.a
	$(call show,LINK) $(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

compile = $(CC) $(CFLAGS_COMMON) $(1) $(CFLAGS) $(shell sed -n '1s/.*cflags: \(.*\) \*\/.*/\1/p' $<) -MMD -MP -c -o $@ $<
$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call show,CC) $(call compile,$(CFLAGS_$(config)))
ifneq ($(COMMON),$(B))
$(COMMON)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call show,CC) $(call compile,$(CFLAGS_release))
endif

# Checks that the address sanitizer makes as well, left out where they double the time of the compiler.
$(B)/ggml-like/kernels/isa_%.o $(B)/quant/isa_%.o: CFLAGS_asan += -fno-sanitize=null,object-size,pointer-overflow

# The assembler includes it: no .d file knows.
$(COMMON)/tools/dataset_text.o: models/calibration.jsonl

## make test           all checks that need only a C compiler; ends with "N passed, N failed"
programs: $(B)/cuanto $(B)/test $(FUZZ:%=$(B)/fuzz_%)
test: programs
	@RUN="$(RUN)" sh tests/run.sh $(B)
## make chat           build, fetch the default model if it is not there, chat
chat: all
	@models/get_model smollm2-135m-instruct-q4_1
	$(B)/cuanto chat models/smollm2-135m-instruct-q4_1.gguf
## make bench          speed of the models in models/, with the machine's limits; ARGS='--kernels'
bench: all
	@for m in models/*.gguf; do test -f "$$m" || { echo "no model in models/: run models/get_model" >&2; exit 1; }; $(B)/cuanto bench "$$m" $(ARGS); done
## make arm            cross-compile for aarch64 and run the tests under qemu-user; kernels also on CPUs that lack the upper levels
arm:
	@$(MAKE) config=arm test
	@for cpu in cortex-a72 neoverse-n1; do \
	  qemu-aarch64 -cpu $$cpu build/arm/test -j 2 cpu kernels_matmul kernels_vec -x tile_is_exact -x attn_row_is_bit_equal || exit 1; done
## make lint           include direction, sizes, banned calls
lint:
	@sh tests/lint.sh
## make fuzz T=gguf S=60   libFuzzer with clang, S seconds
T ?= gguf
S ?= 60
FUZZ_CC ?= clang-14
fuzz:
	@mkdir -p build/fuzz/corpus_$(T)
	$(FUZZ_CC) $(CFLAGS_COMMON) -O1 -DCUANTO_SCALAR=1 -fsanitize=fuzzer,address,undefined -o build/fuzz/$(T) tests/fuzz/fuzz_$(T).c \
	  $(filter-out ggml-like/kernels/isa_% quant/isa_%,$(LIB)) $(LIBS)
	build/fuzz/$(T) -max_total_time=$(S) -timeout=10 build/fuzz/corpus_$(T) $(wildcard tests/fuzz/corpus/$(T))
## make oracle         the programs that tests/oracle/*.py compare with other engines
oracle: $(B)/speed $(B)/logits $(B)/tokens $(B)/samplers $(B)/grammars $(B)/schemas $(B)/checkpoint $(B)/convert_tokenizer $(B)/templates
## make install        PREFIX=/usr/local DESTDIR=
install: all
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(B)/cuanto $(DESTDIR)$(PREFIX)/bin/cuanto
clean:
	rm -rf build cuanto
help:
	@echo "make                build/release/cuanto (also ./cuanto)"
	@sed -n 's/^## //p' Makefile
	@echo "make config=C test  C: release debug scalar asan tsan arm, one build folder each"
	@echo "make clean          remove all builds"

.PHONY: all programs test chat bench arm lint fuzz oracle install clean help
.SECONDARY:
-include $(shell find $(sort $(B) $(COMMON)) -name '*.d' 2>/dev/null)
