#!/bin/sh
# The AVX-512 kernels on any x86-64 CPU with AVX2: their files are compiled without AVX-512 against the SIMDe headers and must pass the claims
# about kernels that the real ones pass. Proves arithmetic and indices, not speed or instruction selection. Needs pip, or SIMDE=FOLDER with simde/.
set -eu
cd "$(dirname "$0")/.."
cc=${CC:-cc} build=build/simde
if [ -z "${SIMDE:-}" ]; then
    SIMDE=$build/cmeel.prefix/include
    if [ ! -d "$SIMDE/simde" ]; then
        mkdir -p $build
        python3 -m pip download -q --no-deps -d $build cmeel-simde==0.8.2
        python3 -m zipfile -e $build/cmeel_simde-0.8.2-*.whl $build
    fi
fi
make -s -j2 CC="$cc" B=$build CFLAGS=-DCUANTO_EMULATE_AVX512 $build/test
for f in ggml-like/kernels/isa_avx512*.c; do
    $cc -std=c11 -D_GNU_SOURCE -Itests/simde -isystem "$SIMDE" -I. -O2 -fno-math-errno -ffp-contract=off -mavx2 -mfma -mf16c -w -c "$f" \
        -o "$build/${f%.c}.o"
done
make -s CC="$cc" B=$build CFLAGS=-DCUANTO_EMULATE_AVX512 $build/test
if objdump -d $build/ggml-like/kernels/isa_avx512*.o | grep -q zmm; then
    echo "simde.sh: AVX-512 instructions are left" >&2
    exit 1
fi
exec $build/test kernels_matmul
