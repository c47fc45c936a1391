#!/bin/sh
# The AVX-512, AVX-VNNI and AMX kernels on any x86-64 CPU with AVX2: their files are compiled without either against the SIMDe headers and must pass the claims
# about kernels that the real ones pass. Proves arithmetic and indices, not speed or instruction selection. Takes a minute, most of it to compile
# the tiles. Needs pip, or SIMDE=FOLDER that holds simde/.
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-cc} build=${B:-build/simde}
if [ -z "${SIMDE:-}" ]; then
    SIMDE=$build/cmeel.prefix/include
    if [ ! -d "$SIMDE/simde" ]; then
        mkdir -p "$build"
        python3 -m pip download -q --no-deps -d "$build" cmeel-simde==0.8.2
        python3 -m zipfile -e "$build"/cmeel_simde-0.8.2-*.whl "$build"
    fi
fi
isa=$(ls ggml-like/kernels/isa_avx512*.c ggml-like/kernels/isa_avxvnni*.c ggml-like/kernels/isa_amx*.c quant/isa_avx512*.c)
mkdir -p "$build/ggml-like/kernels" "$build/quant"
for f in $isa; do echo "${f%.c}"; done | xargs -P 2 -I NAME \
    $cc -std=c11 -D_GNU_SOURCE -Itests/simde -isystem "$SIMDE" -I. -O1 -fno-math-errno -ffp-contract=off -mavx2 -mfma -mf16c -w -Wno-psabi \
    -c NAME.c -o "$build/NAME.o"
# All else but the detection of these levels is the release build's.
make -s -j2 CC="$cc" B="$build" CFLAGS=-DCUANTO_EMULATE_AVX512 OWN="ggml-like/cpu.c $(echo $isa)" "$build/test"
if objdump -d "$build"/*/isa_avx512*.o "$build"/*/*/isa_avx512*.o "$build"/*/*/isa_avxvnni*.o "$build"/*/*/isa_amx*.o 2>/dev/null | grep -q 'zmm\|vpdp\|tmm\|tilecfg'; then
    echo "simde.sh: AVX-512, VNNI or AMX instructions are left" >&2
    exit 1
fi
exec "$build/test" kernels_matmul kernels_vec quant_search grad_ops
