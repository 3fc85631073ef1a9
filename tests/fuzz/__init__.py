"""Coverage-guided fuzzing of all that reads foreign bytes; `.ci/fuzz` runs it.

A target is a function of bytes. It may end in any way but an exception: what a caller has to
expect it catches itself, so that whatever escapes is a finding. Without a fuzzer the targets run
over their seeds in the test suite.
"""
