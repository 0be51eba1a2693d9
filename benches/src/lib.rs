//! Engine benchmarks beside fio, in one run.
