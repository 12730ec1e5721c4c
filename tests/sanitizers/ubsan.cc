// Options of --config=ubsan, which suppresses nothing: undefined behaviour
// ends the test.

extern "C" const char* __ubsan_default_options() {
  return "print_stacktrace=1:halt_on_error=1";
}
