#include "server/held_rows.h"

#include "c10/util/Exception.h"

namespace esper::server {

void LendRows(const std::vector<StepTicket*>& tickets, StatePool* pool) {
  for (StepTicket* ticket : tickets) {
    if (ticket->held == nullptr || ticket->state_row >= 0) continue;
    const auto row = pool->Allocate();
    TORCH_CHECK(row.has_value(), "no row is free for a step of a batch");
    ticket->state_row = *row;
    const HeldState& held = *ticket->held;
    if (!held.h.empty()) pool->Write(*row, held.h.data(), held.c.data());
  }
}

void ReadHeldStates(const std::vector<StepTicket*>& tickets,
                    const StatePool& pool) {
  for (StepTicket* ticket : tickets) {
    if (ticket->held == nullptr) continue;
    const float* h = pool.h(ticket->state_row);
    const float* c = pool.c(ticket->state_row);
    HeldState& next = ticket->next;
    next.seed = ticket->seed;
    next.step = ticket->step + 1;
    next.deterministic = ticket->deterministic;
    next.h.assign(h, h + pool.row_size());
    next.c.assign(c, c + pool.row_size());
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
