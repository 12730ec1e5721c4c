// Options of --config=asan. Memory errors are never suppressed; leaks are,
// where LibTorch keeps what it once made for the life of the process.

extern "C" const char* __asan_default_options() {
  return "detect_stack_use_after_return=1:strict_init_order=1";
}

extern "C" const char* __lsan_default_suppressions() {
  // Uninstrumented libraries, with the reason for each.
  return
      // Operator tables and thread-local caches are made once and never freed.
      "leak:libtorch_cpu.so\n"
      "leak:libc10.so\n"
      // GNU OpenMP keeps its pool of threads until the process ends.
      "leak:libgomp\n";
}
