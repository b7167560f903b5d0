#ifndef FDX_UTF8_SIMD_H
#define FDX_UTF8_SIMD_H
#include "cpu.h"
#endif
