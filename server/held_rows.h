#ifndef ESPER_SERVER_HELD_ROWS_H_
#define ESPER_SERVER_HELD_ROWS_H_

#include <vector>

#include "server/episode_types.h"
#include "server/state_pool.h"

// Rows of the state pool, lent for the time of one batch to steps whose client
// holds the recurrent state. So one batch mixes them with open episodes, and
// both take the same way through the policy.
//
// Tickets without `held` are left alone. The pool must have a spare row for
// every row of a batch.
namespace esper::server {

// Gives each held ticket that has none a row with its state in it.
void LendRows(const std::vector<StepTicket*>& tickets, StatePool* pool);

// Copies the state after the step from their rows to `next` of held tickets.
void ReadHeldStates(const std::vector<StepTicket*>& tickets,
                    const StatePool& pool);

// Gives the lent rows back.
void ReturnRows(std::vector<StepTicket>* tickets, StatePool* pool);

}  // namespace esper::server
#endif  // ESPER_SERVER_HELD_ROWS_H_
