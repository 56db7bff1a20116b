// One product by one team of threads: the level's own where it has one, else that of AVX2, which every level can run.
#include "native.h"

using qtool::Product;

int qtool::multiply_by_team(const Product& p, int kind, int step) {
#ifdef QTOOL_AVX512
  if (multiply_avx512(p, kind, step) == 0) return 0;
#endif
  return multiply_avx2(p, kind, step);
}

extern "C" {

// Bytes of scratch that any of the products needs at most.
int64_t qtool_scratch(int64_t tokens, int64_t padded, int64_t step) {
  return tokens * (padded * 4 + padded / step * 36 + 64);
}

// See native.h; 1 also at a level without panels.
int qtool_widen(const Product* given, int kind, int step, int64_t first, int64_t last, void* to, int64_t stride) {
#ifdef QTOOL_AVX512
  return qtool::widen_avx512(*given, kind, step, first, last, to, stride);
#else
  return 1;
#endif
}

// 0, or 1 when there is no such product.
int qtool_product(const Product* given, int kind, int step) {
  int missing = 0;
  if (given->tokens == 0) return 0;
#pragma omp parallel num_threads(given->threads)
  {
    const int found = qtool::multiply_by_team(*given, kind, step);
#pragma omp master
    missing = found;
  }
  return missing;
}
}
