#include "server/held_rows.h"

#include <algorithm>
#include <cstdint>

#include "ATen/ops/empty.h"
#include "ATen/ops/tensor.h"
#include "c10/util/Exception.h"

namespace esper::server {
namespace {

std::vector<StepTicket*> HeldOf(const std::vector<StepTicket*>& tickets) {
  std::vector<StepTicket*> held;
  for (StepTicket* ticket : tickets) {
    if (ticket->held != nullptr) held.push_back(ticket);
  }
  return held;
}

at::Tensor RowsOf(const std::vector<StepTicket*>& tickets) {
  std::vector<int64_t> rows;
  for (const StepTicket* ticket : tickets) rows.push_back(ticket->state_row);
  return at::tensor(rows, at::kLong);
}

// float32 [L, N, H]: row i is part `state` of ticket i, which is [L * H].
at::Tensor Stack(const std::vector<StepTicket*>& tickets, int64_t layers,
                 std::vector<float> HeldState::*state) {
  const int64_t width =
      static_cast<int64_t>(((*tickets.front()->held).*state).size()) / layers;
  const int64_t count = static_cast<int64_t>(tickets.size());
  at::Tensor stacked = at::empty({layers, count, width}, at::kFloat);
  float* out = stacked.mutable_data_ptr<float>();
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const StepTicket* ticket : tickets) {
      const float* row = ((*ticket->held).*state).data() + layer * width;
      out = std::copy(row, row + width, out);
    }
  }
  return stacked;
}

// [L * H]: row `index` of a [L, N, H] tensor.
std::vector<float> RowOf(const at::Tensor& stacked, int64_t index) {
  const int64_t width = stacked.size(2);
  const at::Tensor contiguous = stacked.contiguous();
  const float* data = contiguous.const_data_ptr<float>();
  std::vector<float> row;
  for (int64_t layer = 0; layer < stacked.size(0); ++layer) {
    const float* begin = data + (layer * stacked.size(1) + index) * width;
    row.insert(row.end(), begin, begin + width);
  }
  return row;
}

}  // namespace

void LendRows(const std::vector<StepTicket*>& tickets, int64_t layers,
              StatePool* pool) {
  std::vector<StepTicket*> filled;
  for (StepTicket* ticket : HeldOf(tickets)) {
    if (ticket->state_row >= 0) continue;
    const auto row = pool->Allocate();
    TORCH_CHECK(row.has_value(), "no row is free for a step of a batch");
    ticket->state_row = *row;
    if (!ticket->held->h.empty()) filled.push_back(ticket);
  }
  if (filled.empty()) return;
  pool->Scatter(RowsOf(filled), Stack(filled, layers, &HeldState::h),
                Stack(filled, layers, &HeldState::c));
}

void ReadHeldStates(const std::vector<StepTicket*>& tickets,
                    const at::Tensor& h, const at::Tensor& c) {
  for (size_t i = 0; i < tickets.size(); ++i) {
    StepTicket& ticket = *tickets[i];
    if (ticket.held == nullptr) continue;
    HeldState& next = ticket.next;
    next.seed = ticket.seed;
    next.step = ticket.step + 1;
    next.deterministic = ticket.deterministic;
    next.h = RowOf(h, static_cast<int64_t>(i));
    next.c = RowOf(c, static_cast<int64_t>(i));
  }
}

void ReturnRows(std::vector<StepTicket>* tickets, StatePool* pool) {
  for (StepTicket& ticket : *tickets) {
    if (ticket.held == nullptr || ticket.state_row < 0) continue;
    pool->Free(ticket.state_row);
    ticket.state_row = -1;
  }
}

}  // namespace esper::server
