"""What is promised, a line each, and the test that holds it: the section RELIABILITY of the manual."""

PROMISES = {
    "An output has its name only when it is whole and on disk; until then the old file stays as it was.": (
        "tests/faults/test_26_to_39_files_and_os.py::test_26_27_whichever_call_on_the_output_fails_the_target_is_old_or_new"
    ),
    "A run that is killed at any moment, between any two system calls, leaves an output that is old or whole, and nothing in the way.": (
        "tests/faults/test_26_to_39_files_and_os.py::test_29_killed_at_any_call_of_the_commit_the_target_is_old_or_new_and_the_next_run_succeeds"
    ),
    "With --resume a run that was stopped, however it was, becomes what it would have been, byte for byte.": (
        "tests/test_resume.py::test_cut_anywhere_and_resumed_the_file_is_the_same_byte_for_byte"
    ),
    "Any byte cut off and any bit flipped in what is read is an error, never a short success.": (
        "tests/test_streams.py::test_every_cut_and_every_flipped_bit_is_seen_by_every_verb_that_reads_the_whole"
    ),
    "When a stage of a pipe fails or is killed, every later stage fails, with or without pipefail.": (
        "tests/test_streams.py::test_killing_any_stage_of_a_pipe_fails_every_later_one"
    ),
    "Inputs are never changed, and an output is never one of the inputs, by whatever name.": (
        "tests/test_files.py::test_the_output_may_not_be_an_input"
    ),
    "Of two runs on one output one writes and the other leaves at once; no lock outlives its run.": (
        "tests/faults/test_26_to_39_files_and_os.py::test_33_of_two_runs_that_start_together_one_writes_and_no_lock_stays"
    ),
    "No record is lost, doubled or changed: what is not kept can be had with --rejects, and every byte of a record stays what it was.": (
        "tests/faults/test_round_trips.py::test_slice_and_its_rejects_are_the_input_each_in_its_order"
    ),
    "The same records give the same output, however they are cut into files and frames, with any memory and any number of threads.": (
        "tests/faults/test_round_trips.py::test_any_split_into_files_frames_and_formats_gives_the_same_output"
    ),
    "No line, window, frame or table, however hostile, takes more memory than a limit that an option names.": (
        "tests/faults/test_01_to_10_compressed_stream.py::test_10_ten_gigabytes_of_one_line_from_less_than_a_megabyte"
    ),
}
