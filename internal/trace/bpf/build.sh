#!/bin/sh
# Compiles the programs: build.sh FILE. Needs clang 14 and llvm-strip 14; another
# version gives other bytes. No path of this machine gets into the object.
set -eu
cd "$(dirname "$0")"
clang-14 -target bpfel -mcpu=v3 -O2 -g -Wall -Wextra -Werror -nostdinc \
	-fdebug-compilation-dir=. -c trace.bpf.c -o "$1"
llvm-strip-14 -g "$1"
