"""A test that a source file does not compile, and for the stated reason."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")

# Compiles twice: with the define it must work, so that nothing but the mistake
# is at fault; without it must fail with the message.
_COMMAND = """
cc="$1"; src="$2"; define="$3"; message="$4"; report="$5"; shift 5
log="$report.log"
if ! "$cc" "$@" "-D$define" "$src" > "$log" 2>&1; then
  { echo "FAILED: $src does not compile with $define:"; cat "$log"; } > "$report"
elif "$cc" "$@" "$src" > "$log" 2>&1; then
  echo "FAILED: $src compiles without $define" > "$report"
elif ! grep -q -- "$message" "$log"; then
  { echo "FAILED: $src is refused for another reason:"; cat "$log"; } > "$report"
else
  echo "PASSED" > "$report"
fi
rm -f "$log"
"""

def _compile_fail_test_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    infos = [dep[CcInfo] for dep in ctx.attr.deps]
    context = cc_common.merge_cc_infos(cc_infos = infos).compilation_context
    report = ctx.actions.declare_file(ctx.label.name + ".report")
    args = ctx.actions.args()
    args.add(toolchain.compiler_executable)
    args.add(ctx.file.src)
    args.add(ctx.attr.valid_define)
    args.add(ctx.attr.message)
    args.add(report)
    args.add_all(["-std=c++17", "-fsyntax-only", "-w"])
    args.add_all(context.defines, format_each = "-D%s")
    args.add_all(context.quote_includes, before_each = "-iquote")
    args.add_all(context.includes, before_each = "-I")
    args.add_all(context.system_includes, before_each = "-isystem")
    ctx.actions.run_shell(
        inputs = depset(
            [ctx.file.src],
            transitive = [context.headers, toolchain.all_files],
        ),
        outputs = [report],
        command = _COMMAND,
        arguments = [args],
        mnemonic = "CompileFail",
    )
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(
        script,
        "cat {0} && grep -q '^PASSED' {0}\n".format(report.short_path),
        is_executable = True,
    )
    return [DefaultInfo(
        executable = script,
        runfiles = ctx.runfiles(files = [report]),
    )]

compile_fail_test = rule(
    implementation = _compile_fail_test_impl,
    test = True,
    attrs = {
        "src": attr.label(allow_single_file = [".cc"], mandatory = True),
        "deps": attr.label_list(providers = [CcInfo]),
        # Preprocessor symbol under which the file must compile.
        "valid_define": attr.string(mandatory = True),
        # Regular expression that the compiler's message must match.
        "message": attr.string(mandatory = True),
        "_cc_toolchain": attr.label(
            default = "@bazel_tools//tools/cpp:current_cc_toolchain",
        ),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
    fragments = ["cpp"],
)
