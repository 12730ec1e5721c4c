"""Brings the handwritten digits as the file @digits//:digits.csv.gz."""

def _digits_repository_impl(ctx):
    result = ctx.execute(
        ["python3", str(ctx.path(ctx.attr._fetch)), "digits.csv.gz"],
        timeout = 600,
    )
    if result.return_code != 0:
        fail("fetching the digits failed (run deploy/bootstrap.sh first?):\n" +
             result.stdout + result.stderr)
    ctx.file("BUILD", 'exports_files(["digits.csv.gz"])\n')

digits_repository = repository_rule(
    implementation = _digits_repository_impl,
    attrs = {"_fetch": attr.label(default = "//deploy:fetch_digits.py")},
    doc = "The data set of the task digits; sha256 checked.",
)
