"""The section RELIABILITY of the manual: each promise, and the test that holds it."""

PROMISES = {
    "An output gets its name only when it is whole and on disk; until then the old file stays in place.": (
        "tests/faults/test_26_to_33_writing.py::"
        "test_26_27_when_any_call_on_the_output_fails_the_target_is_old_or_new"
    ),
    (
        "A run killed at any moment, between any two system calls, leaves the old output or the whole new "
        "one, and nothing that blocks the next run."
    ): (
        "tests/faults/test_26_to_33_writing.py::"
        "test_29_killed_at_any_call_of_the_commit_the_target_is_old_or_new_and_the_next_run_succeeds"
    ),
    "With --resume, a run that was stopped in any way ends with the bytes of an uninterrupted run.": (
        "tests/test_resume.py::test_a_file_cut_anywhere_is_resumed_to_the_same_bytes"
    ),
    "Any missing byte and any flipped bit in the input is an error, never a short success.": (
        "tests/test_streams.py::test_every_cut_or_flipped_bit_is_found_by_verbs_that_read_everything"
    ),
    "When a stage of a pipe fails or is killed, every later stage fails, with or without pipefail.": (
        "tests/test_streams.py::test_killing_any_stage_of_a_pipe_fails_every_later_one"
    ),
    "Inputs are never changed, and an output is never one of the inputs under another name.": (
        "tests/test_files.py::test_the_output_may_not_be_an_input"
    ),
    "Of two runs with the same output, one writes and the other exits at once; no lock outlives its run.": (
        "tests/faults/test_26_to_33_writing.py::test_33_of_two_simultaneous_runs_one_writes_and_no_lock_stays"
    ),
    (
        "No record is lost, duplicated or changed: --rejects receives the records that are not kept, and "
        "every byte of a record stays as it is."
    ): ("tests/faults/test_round_trips.py::test_slice_and_its_rejects_together_are_the_input_in_order"),
    (
        "The same records give the same output for any division into files and frames, any memory and any "
        "number of threads."
    ): (
        "tests/faults/test_round_trips.py::test_any_split_into_files_frames_and_formats_gives_the_same_output"
    ),
    (
        "No line, window, frame or table in a hostile input takes more memory than the limit that an "
        "option sets."
    ): (
        "tests/faults/test_01_to_10_compressed_stream.py::"
        "test_10_a_line_of_ten_gigabytes_compressed_to_a_megabyte_is_refused"
    ),
}
