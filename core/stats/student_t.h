#ifndef ESPER_CORE_STATS_STUDENT_T_H_
#define ESPER_CORE_STATS_STUDENT_T_H_

// Student's t distribution. Pure functions, safe from any thread.
namespace esper::stats {

// P(T <= t) with `degrees` > 0 degrees of freedom, by the continued fraction of
// the incomplete beta function (DLMF 8.17.22); relative error below 1e-10.
double StudentTCdf(double t, double degrees);

// The t with StudentTCdf(t) = p, for p in (0, 1).
double StudentTQuantile(double p, double degrees);

// P(|T| >= |t|): the two-sided p-value of a statistic.
double StudentTTwoSided(double t, double degrees);

}  // namespace esper::stats
#endif  // ESPER_CORE_STATS_STUDENT_T_H_
