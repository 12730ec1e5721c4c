// No include guard: the body of one instruction set. A file defines kLanes, the
// floats of a vector register, kMaxRows, the rows of the largest block of a
// product, and kMaxSums, the registers for its sums, in a namespace of its own
// and includes this there. Nothing here calls an inline function of a header,
// which the linker might share with code for other processors.

typedef float Vec
    __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t IntVec
    __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint32_t WordVec
    __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

// Registers per panel.
constexpr int kVecs = kPanelWidth / kLanes;

inline Vec Load(const float* x) { return *reinterpret_cast<const Vec*>(x); }
inline void Store(float* y, Vec x) { *reinterpret_cast<Vec*>(y) = x; }
// Minus zero changes no number, so that it costs nothing; plus zero would.
inline Vec Splat(float x) { return x - Vec{}; }
// NaN in x stays NaN.
inline Vec AtLeast(Vec x, float low) { return x < low ? Splat(low) : x; }
inline Vec AtMost(Vec x, float high) { return x > high ? Splat(high) : x; }

template <int kRows, int kPanels>
struct Block {
  Vec sums[kRows][kPanels * kVecs];

  inline void Clear() {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVecs; ++v) sums[r][v] = Vec{};
    }
  }

  inline void Finish(const LinearCall& call, int64_t row, int64_t panel) const {
    const float* bias = call.bias + panel * kPanelWidth;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      float* y = call.y + (row + r) * call.ldy + panel * kPanelWidth;
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVecs; ++v) {
        Vec out = sums[r][v] + Load(bias + v * kLanes);
        if (call.relu) out = AtLeast(out, 0);
        Store(y + v * kLanes, out);
      }
    }
  }
};

template <int kRows, int kPanels>
void LinearBlock(const LinearCall& call, int64_t row, int64_t panel) {
  const int64_t inputs = call.inputs;
  const int64_t stride = inputs * kPanelWidth;
  const float* w = static_cast<const float*>(call.panels) + panel * stride;
  const float* x = call.x + row * call.ldx;
  const int64_t ldx = call.ldx;
  Block<kRows, kPanels> block;
  block.Clear();
  for (int64_t k = 0; k < inputs; ++k) {
#pragma GCC unroll 16
    for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec factor = Splat(x[r * ldx + k]);
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) {
          block.sums[r][p * kVecs + v] +=
              factor * Load(w + p * stride + k * kPanelWidth + v * kLanes);
        }
      }
    }
  }
  block.Finish(call, row, panel);
}

template <int kRows, int kPanels>
void Bf16Block(const LinearCall& call, int64_t row, int64_t panel) {
  const int64_t inputs = call.inputs;
  const int64_t stride = (inputs + 1) / 2 * kPanelWidth;
  const uint32_t* w =
      static_cast<const uint32_t*>(call.panels) + panel * stride;
  const float* x = call.x + row * call.ldx;
  const int64_t ldx = call.ldx;
  Block<kRows, kPanels> block;
  block.Clear();
  int64_t k = 0;
  for (; k + 1 < inputs; k += 2) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) {
      const WordVec pair = *reinterpret_cast<const WordVec*>(
          w + v / kVecs * stride + k / 2 * kPanelWidth + v % kVecs * kLanes);
      const Vec even = reinterpret_cast<Vec>(pair << 16);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        block.sums[r][v] += Splat(x[r * ldx + k]) * even;
      }
      const Vec odd = reinterpret_cast<Vec>(pair & 0xffff0000u);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        block.sums[r][v] += Splat(x[r * ldx + k + 1]) * odd;
      }
    }
  }
  if (k < inputs) {
    for (int v = 0; v < kPanels * kVecs; ++v) {
      const WordVec pair = *reinterpret_cast<const WordVec*>(
          w + v / kVecs * stride + k / 2 * kPanelWidth + v % kVecs * kLanes);
      const Vec even = reinterpret_cast<Vec>(pair << 16);
      for (int r = 0; r < kRows; ++r) {
        block.sums[r][v] += Splat(x[r * ldx + k]) * even;
      }
    }
  }
  block.Finish(call, row, panel);
}

// Rows of all panels, kRows at a time. Few rows take several panels at once:
// a single row would wait for its chain of sums.
template <int kRows, bool kBf16>
void RowBlock(const LinearCall& call, int64_t row, int64_t panel, int panels) {
  constexpr int kFitting = kMaxSums / (kRows * kVecs);
  constexpr int kWide = kFitting >= 4 ? 4 : (kFitting >= 2 ? 2 : 1);
  int64_t p = panel;
  const int64_t end = panel + panels;
  if constexpr (kWide > 1) {
    for (; p + kWide <= end; p += kWide) {
      kBf16 ? Bf16Block<kRows, kWide>(call, row, p)
            : LinearBlock<kRows, kWide>(call, row, p);
    }
  }
  for (; p < end; ++p) {
    kBf16 ? Bf16Block<kRows, 1>(call, row, p)
          : LinearBlock<kRows, 1>(call, row, p);
  }
}

// The last rows, fewer than kMaxRows.
template <int kRows, bool kBf16>
void LastRows(const LinearCall& call, int64_t row, int64_t left, int64_t panel,
              int panels) {
  if constexpr (kRows > 0) {
    if (left == kRows) {
      RowBlock<kRows, kBf16>(call, row, panel, panels);
    } else {
      LastRows<kRows - 1, kBf16>(call, row, left, panel, panels);
    }
  }
}

template <bool kBf16>
void AllRows(const LinearCall& call) {
  // Panels that stay in the first-level cache while the rows pass by.
  constexpr int kGroup = 4;
  for (int64_t panel = 0; panel < call.num_panels; panel += kGroup) {
    const int64_t after = call.num_panels - panel;
    const int panels = static_cast<int>(after < kGroup ? after : kGroup);
    int64_t row = 0;
    for (; row + kMaxRows <= call.rows; row += kMaxRows) {
      RowBlock<kMaxRows, kBf16>(call, row, panel, panels);
    }
    LastRows<kMaxRows - 1, kBf16>(call, row, call.rows - row, panel, panels);
  }
}

void Linear(const LinearCall& call) { AllRows<false>(call); }
void LinearBf16(const LinearCall& call) { AllRows<true>(call); }

// exp(x) for x in [-87, 88], clamped there; the polynomial of Cephes.
inline Vec Exp(Vec x) {
  x = AtMost(AtLeast(x, -87.0f), 88.0f);
  // Adding 1.5 * 2^23 rounds to an integer.
  const Vec shift = Splat(12582912.0f);
  const Vec n = (x * 1.44269504088896341f + shift) - shift;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = Splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const IntVec power = (__builtin_convertvector(n, IntVec) + 127) << 23;
  return p * reinterpret_cast<Vec>(power);
}

inline Vec Sigmoid(Vec x) { return 1.0f / (1.0f + Exp(-x)); }

// Near 0 the odd polynomial of Cephes: 1 - 2 / (e^2x + 1) loses digits there.
inline Vec Tanh(Vec x) {
  const Vec size = x < 0.0f ? -x : x;
  const Vec s = x * x;
  Vec p = Splat(-5.70498872745e-3f);
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const Vec near = p * s * x + x;
  const Vec far = 1.0f - 2.0f / (Exp(size + size) + 1.0f);
  return size < 0.625f ? near : (x < 0.0f ? -far : far);
}

inline void CellVec(Vec i, Vec f, Vec g, Vec o, Vec c, Vec* next_h,
                    Vec* next_c) {
  *next_c = Sigmoid(f) * c + Sigmoid(i) * Tanh(g);
  *next_h = Sigmoid(o) * Tanh(*next_c);
}

void LstmCell(const LstmCellCall& call) {
  const int64_t width = call.width;
  int64_t j = 0;
  for (; j + kLanes <= width; j += kLanes) {
    const float* gates = call.gates + j;
    Vec h, c;
    CellVec(Load(gates), Load(gates + width), Load(gates + 2 * width),
            Load(gates + 3 * width), Load(call.c + j), &h, &c);
    Store(call.next_h + j, h);
    Store(call.next_c + j, c);
  }
  for (; j < width; ++j) {
    const float* gates = call.gates + j;
    Vec h, c;
    CellVec(Splat(gates[0]), Splat(gates[width]), Splat(gates[2 * width]),
            Splat(gates[3 * width]), Splat(call.c[j]), &h, &c);
    call.next_h[j] = h[0];
    call.next_c[j] = c[0];
  }
}

// Number `j` of each gate: a whole vector, or one number in every lane.
template <bool kWhole>
inline Vec Take(const float* x) {
  return kWhole ? Load(x) : Splat(*x);
}
template <bool kWhole>
inline void Put(float* y, Vec x) {
  if (kWhole) {
    Store(y, x);
  } else {
    *y = x[0];
  }
}

template <bool kWhole>
inline void ForwardAt(const LstmForwardCall& call, int64_t j) {
  const int64_t width = call.width;
  Vec gates[4];
  for (int k = 0; k < 4; ++k) {
    const Vec sum = Take<kWhole>(call.input + k * width + j) +
                    Take<kWhole>(call.product + k * width + j);
    gates[k] = k == 2 ? Tanh(sum) : Sigmoid(sum);
    Put<kWhole>(call.gates + k * width + j, gates[k]);
  }
  const Vec c = gates[1] * Take<kWhole>(call.c + j) + gates[0] * gates[2];
  Put<kWhole>(call.next_c + j, c);
  Put<kWhole>(call.next_h + j, gates[3] * Tanh(c));
}

template <bool kWhole>
inline void BackwardAt(const LstmBackwardCall& call, int64_t j) {
  const int64_t width = call.width;
  const Vec i = Take<kWhole>(call.gates + j);
  const Vec f = Take<kWhole>(call.gates + width + j);
  const Vec g = Take<kWhole>(call.gates + 2 * width + j);
  const Vec o = Take<kWhole>(call.gates + 3 * width + j);
  const Vec tanh_c = Tanh(Take<kWhole>(call.next_c + j));
  const Vec dh = Take<kWhole>(call.dh + j);
  const Vec dc = Take<kWhole>(call.dc + j) + dh * o * (1.0f - tanh_c * tanh_c);
  Put<kWhole>(call.dgates + j, dc * g * i * (1.0f - i));
  Put<kWhole>(call.dgates + width + j,
              dc * Take<kWhole>(call.c + j) * f * (1.0f - f));
  Put<kWhole>(call.dgates + 2 * width + j, dc * i * (1.0f - g * g));
  Put<kWhole>(call.dgates + 3 * width + j, dh * tanh_c * o * (1.0f - o));
  Put<kWhole>(call.dc + j, dc * f);
}

void LstmForward(const LstmForwardCall& call) {
  int64_t j = 0;
  for (; j + kLanes <= call.width; j += kLanes) ForwardAt<true>(call, j);
  for (; j < call.width; ++j) ForwardAt<false>(call, j);
}

void LstmBackward(const LstmBackwardCall& call) {
  int64_t j = 0;
  for (; j + kLanes <= call.width; j += kLanes) BackwardAt<true>(call, j);
  for (; j < call.width; ++j) BackwardAt<false>(call, j);
}

inline float Sum(const Vec (&x)[kVecs], float rest) {
  float sum = rest;
  for (int v = 0; v < kVecs; ++v) {
    for (int lane = 0; lane < kLanes; ++lane) sum += x[v][lane];
  }
  return sum;
}

void LayerNorm(const LayerNormCall& call) {
  const int64_t width = call.width;
  const int64_t whole = width / kPanelWidth * kPanelWidth;
  for (int64_t row = 0; row < call.rows; ++row) {
    const float* x = call.x + row * call.ldx;
    Vec sums[kVecs] = {};
    float rest = 0;
    for (int64_t j = 0; j < whole; j += kPanelWidth) {
      for (int v = 0; v < kVecs; ++v) sums[v] += Load(x + j + v * kLanes);
    }
    for (int64_t j = whole; j < width; ++j) rest += x[j];
    const float mean = Sum(sums, rest) / static_cast<float>(width);

    Vec squares[kVecs] = {};
    rest = 0;
    for (int64_t j = 0; j < whole; j += kPanelWidth) {
      for (int v = 0; v < kVecs; ++v) {
        const Vec d = Load(x + j + v * kLanes) - mean;
        squares[v] += d * d;
      }
    }
    for (int64_t j = whole; j < width; ++j) {
      rest += (x[j] - mean) * (x[j] - mean);
    }
    const float variance = Sum(squares, rest) / static_cast<float>(width);
    const float scale = 1.0f / __builtin_sqrtf(variance + call.epsilon);

    float* y = call.y + row * call.ldy;
    const float* residual =
        call.residual == nullptr ? nullptr : call.residual + row * call.ldr;
    for (int64_t j = 0; j < whole; j += kLanes) {
      Vec out = (Load(x + j) - mean) * scale * Load(call.weight + j) +
                Load(call.bias + j);
      if (call.relu) out = AtLeast(out, 0);
      if (residual != nullptr) out += Load(residual + j);
      Store(y + j, out);
    }
    for (int64_t j = whole; j < width; ++j) {
      float out = (x[j] - mean) * scale * call.weight[j] + call.bias[j];
      if (call.relu && out < 0) out = 0;
      if (residual != nullptr) out += residual[j];
      y[j] = out;
    }
  }
}

void RoundBf16(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof(bits));
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    __builtin_memcpy(y + i, &bits, sizeof(bits));
  }
}

bool AllFinite(const float* x, int64_t count) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof(bits));
    bad |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}
