"""What may go wrong, what is promised then, and what proves it: the tables of core/docs/guarantees.md.

`FAULTS` is written by hand. What was measured is not: tests hand it over by pytest's `record_property`, as `runs`, how
often the fault was made, and as `seen`, a number and what it counts ("17 ms at worst"), of which the largest is shown.
A test that says nothing counts as one run. These commands measure anew, and write the page:

    uv run pytest --junit-xml=everyday.xml
    uv run pytest -m soak --junit-xml=soak.xml
    uv run pytest -n 0 -m timed --junit-xml=timed.xml
    uv run python -m tests.fuzz 2> fuzz.log
    uv run python -m tests.faults everyday.xml soak.xml timed.xml fuzz.log

What has no long form is repeated, with `uv run --with pytest-repeat pytest --count 20` and the names of the tests.

Each may be left out, and parts of the tests be run: what a report does not speak of stays as it was, and so does what
was made to happen more often than in the report.
"""

import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import attrs

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "core/docs/guarantees.md"
MEASURED = Path(__file__).with_suffix(".json")
NOT_PROMISED = "Not promised: "


@attrs.frozen
class Fault:
    """One thing that may go wrong.

    Attributes:
        id: the number by which tests name it.
        what: what goes wrong.
        promise: what is promised then; or `NOT_PROMISED` and the reason.
        tests: what proves it: "path::name" of a test, whatever its parameters and its class; or the path of a target
            that is fuzzed.
    """

    id: str
    what: str
    promise: str
    tests: tuple[str, ...] = ()


@attrs.frozen
class Section:
    """Faults of one kind."""

    title: str
    words: str
    faults: tuple[Fault, ...]


_DEATH = "tests/test_death.py::"
_RUN = "tests/test_run.py::"
_OUTPUT = "tests/test_output.py::"
_LARGE = "tests/test_large_messages.py::"
_KIT = "tests/test_conformance.py::"
_HOSTILE = "tests/test_hostile_task.py::"
_CORE = "core/tests/"
_SHM = "plugins/shm/tests/"
_ZMQ = "plugins/zmq/tests/test_zmq.py::"
_MEETING = "core/tests/test_rendezvous.py::"
_FOLDER = "core/tests/test_rendezvous_directory.py::"
_HANDSHAKE = "core/tests/test_rendezvous_handshake.py::"
_RESOURCES = "tests/test_resources.py::"
_SECURITY = "tests/test_security.py::"

SECTIONS = (
    Section(
        "Deaths and ends",
        "A Task, its Executor, or what either has started ends where nobody expects it.",
        (
            Fault(
                "F01",
                "A Task is killed while it sends, at any moment or at its Nth system call, for every N",
                "What was accepted, or over `zmq` what was flushed, is there once and in order; of what was under way, "
                "all or nothing. 98 of 100 results are there within 100 ms",
                (
                    _DEATH + "test_killed_at_a_random_moment",
                    _DEATH + "test_a_death_is_told_soon",
                    "tests/test_crash_points.py::test_some_crash_points",
                    "tests/test_crash_points.py::test_every_crash_point",
                ),
            ),
            Fault(
                "F02",
                "It is killed within a message of 100 MB",
                "As above, and as soon; its memory is given back",
                (_DEATH + "test_killed_within_a_large_message",),
            ),
            Fault(
                "F03",
                "It ends anywhere, in any way, or cannot begin",
                "The table above; the error has the exit code or the name of the signal, and the end of stderr, 1 MiB",
                ("tests/test_endings.py::test_ending", _RUN + "test_end", _RUN + "test_not_started"),
            ),
            Fault(
                "F04",
                "It ends right after its last message: returns, exits, or is killed",
                "All of it arrives, up to 100 MB; over `zmq` when the Task has returned, or has flushed it",
                (_DEATH + "test_exit_right_after_a_message",),
            ),
            Fault(
                "F05",
                "It exits with 0, and without a result",
                "NO_RESULT, never success",
                (_RUN + "test_no_result_is_no_success",),
            ),
            Fault(
                "F06",
                "It dies before it has said a word, or never says one",
                "NOT_STARTED: at its death, or after 60 s, when it is ended",
                (_RUN + "test_never_speaks", _RUN + "test_not_started"),
            ),
            Fault(
                "F07",
                "A grandchild keeps its output open",
                "The run ends within 250 ms, with all that the Task has printed; a grandchild of its group is killed, "
                "or left if that was asked for",
                (
                    _OUTPUT + "test_grandchild_keeps_the_output_open",
                    _CORE + "test_process.py::test_descendants_are_killed",
                    _CORE + "test_process.py::test_descendants_are_left",
                ),
            ),
            Fault(
                "F08",
                "A grandchild floods its output",
                "The run ends within 250 ms; no more is read than the Task could have printed",
                (
                    _OUTPUT + "test_a_flood_that_outlives_the_task",
                    _OUTPUT + "test_a_flood_that_is_faster_than_its_reader",
                ),
            ),
            Fault(
                "F09",
                "A descendant has gone into a session of its own: a daemon",
                "It is ended with the Task, or left if that was asked for: it is known by a word of its environment. "
                "Not promised: to find one that runs as another user, or has written over its environment, as servers "
                "do that change their title; or any on a system without `/proc`. It does not prolong the run",
                (
                    _DEATH + "test_daemons_end_with_their_task",
                    _DEATH + "test_daemons_that_may_live_on",
                    _DEATH + "test_daemons_of_a_task_of_a_task",
                    _CORE + "test_process.py::test_daemon_that_lives_on",
                    _CORE + "test_guardian.py::test_its_tasks_die_within_a_second",
                ),
            ),
            Fault(
                "F10",
                "The Executor's process is ended by SIGTERM",
                "Within a second every Task is gone, and every file",
                (_DEATH + "test_executor_is_killed",),
            ),
            Fault(
                "F11",
                "Ctrl-C, once and twice",
                "The Task is told, and ended: the caller has its KeyboardInterrupt within 200 ms; at the second Ctrl-C "
                "the Task is killed at once",
                (_DEATH + "test_executor_is_interrupted",),
            ),
            Fault(
                "F12",
                "The Executor is killed",
                "As with SIGTERM",
                (_DEATH + "test_executor_is_killed",),
            ),
            Fault(
                "F13",
                "It is killed, and every helper process of it",
                "Every Task in Python is gone within a second; what was shared has no name. Not promised: the end of a "
                "command, which nobody is left to end",
                (_DEATH + "test_executor_and_its_helpers_are_killed",),
            ),
            Fault(
                "F14",
                "A Task that is stopped, or deaf to SIGTERM, is cancelled",
                "It ends within two graces and 200 ms, and is called stopped. Not promised: to notice that one is "
                "stopped before it is cancelled or its time is up",
                (_RUN + "test_cancel_a_stopped_task",),
            ),
            Fault(
                "F15",
                "It is cancelled at any moment from its start on",
                "It ends, and nothing else is signalled; before it listens, it is asked as soon as it does",
                (
                    _DEATH + "test_cancelled_at_a_random_moment",
                    _RUN + "test_cancel_before_it_listens",
                    _CORE + "test_process.py::test_at_the_first_moment",
                ),
            ),
            Fault(
                "F16",
                "Its pid is another's by now",
                "Nobody is signalled",
                (
                    _CORE + "test_process.py::test_reaped_by_somebody_else",
                    _CORE + "test_process.py::test_after_the_end",
                ),
            ),
            Fault(
                "F17",
                "The thread that started it ends",
                "It lives on",
                (_CORE + "test_process.py::test_the_thread_that_started_it_may_end",),
            ),
            Fault(
                "F18",
                "An Executor that was killed has left a directory behind",
                "The next one removes it, once, and says so; that of a living one is never removed",
                (
                    _FOLDER + "test_what_a_killed_owner_has_left",
                    _FOLDER + "test_the_living_keep_theirs",
                    _FOLDER + "test_several_at_once",
                    _FOLDER + "test_none_is_taken_while_it_is_made",
                ),
            ),
        ),
    ),
    Section(
        "What is sent",
        "Bytes, lengths and objects are not what they should be, or come too fast, too slow, or not at all.",
        (
            Fault(
                "F20",
                "Contents hold any bytes, those of frames too",
                "They arrive as they are",
                (
                    _CORE + "test_framing.py::test_whatever_is_written_is_read_wherever_it_is_cut",
                    _KIT + "test_contents_that_look_like_frames",
                    _KIT + "test_messages_that_nobody_thought_of",
                ),
            ),
            Fault(
                "F21",
                "Reads and writes are short, or interrupted by signals, anywhere",
                "The same messages arrive",
                (
                    _CORE + "test_framing.py::test_short_reads_into_the_decoders_own_buffer_give_the_same",
                    _KIT + "test_conversations_over_an_adversary",
                    _CORE + "test_communicators.py::test_a_storm_of_signals",
                ),
            ),
            Fault(
                "F22",
                "The peer ends within a message",
                "What came before is given, then `BrokenError`, which says how much came",
                (
                    _CORE + "test_framing.py::test_the_bytes_end_anywhere",
                    _CORE + "test_framing.py::test_the_error_says_how_much_came",
                    _KIT + "test_an_end_within_a_message",
                ),
            ),
            Fault(
                "F23",
                "The peer falls silent within a message",
                "Other channels go on, and time-outs are kept. Not promised: that somebody notices. A Task that says "
                "nothing may be computing, swapped out or stopped; a time limit is for that",
                (
                    _CORE + "test_communicators.py::test_a_message_that_comes_in_fragments",
                    _CORE + "test_link.py::test_a_large_message_does_not_keep_its_reader",
                ),
            ),
            Fault(
                "F24",
                "What comes is no message: wrong magic, version, kind or length",
                "`ProtocolError`, which names the field and its value; that channel ends, others go on, and the next "
                "peer is served. Not promised: to notice bits that flip within contents, against which the kernel, "
                "TCP and CURVE have sums of their own",
                (
                    _CORE + "test_framing.py::test_the_error_names_the_field_and_its_value",
                    _CORE + "test_framing.py::test_heads_of_random_numbers",
                    _KIT + "test_garbage",
                    _KIT + "test_a_good_peer_beside_garbage",
                    _HOSTILE + "test_the_only_one",
                    _HOSTILE + "test_one_of_two",
                    "tests/fuzz/frames.py",
                ),
            ),
            Fault(
                "F25",
                "A length of up to 2^64 is claimed",
                "Memory follows what has come; 32 MiB at most are reserved",
                (
                    _CORE + "test_framing.py::test_claimed_lengths_reserve_nothing",
                    _CORE + "test_framing.py::test_memory_follows_the_bytes_that_came",
                    _HOSTILE + "test_a_claim",
                ),
            ),
            Fault(
                "F26",
                "An object cannot be pickled",
                "`EncodeError` where it is sent; nothing of it is, and the next message arrives",
                (
                    _KIT + "test_what_cannot_be_encoded",
                    _RUN + "test_result_that_cannot_be_sent",
                    _RUN + "test_unsendable_parameters",
                ),
            ),
            Fault(
                "F27",
                "To unpickle one raises, exits, or never ends",
                "`DecodeError` for this one, where its contents are asked for; the others come, and the run and its "
                "end do not wait. Not promised: to survive one that crashes the interpreter, or to hold off Ctrl-C",
                (
                    _CORE + "test_codec.py::test_whatever_unpickling_raises_is_contained",
                    _KIT + "test_what_cannot_be_decoded",
                    _KIT + "test_nothing_is_decoded_unasked",
                    _DEATH + "test_a_poisonous_message_delays_nothing",
                ),
            ),
            Fault(
                "F28",
                "Its class or module is missing",
                "`DecodeError` names them, and keeps the bytes; the next message is fine",
                (
                    _CORE + "test_codec.py::test_the_module_is_missing",
                    _CORE + "test_codec.py::test_the_class_is_missing",
                    _RUN + "test_result_that_cannot_be_read",
                ),
            ),
            Fault(
                "F29",
                "Messages of 2.5 and 4.5 GiB, either way",
                "They arrive equal; memory is at most 1.1 times their size, and 64 MiB",
                (
                    _LARGE + "test_beyond_32_bits",
                    _LARGE + "test_bytes_of_a_gibibyte",
                    _LARGE + "test_memory_of_a_large_array",
                ),
            ),
            Fault(
                "F30",
                "A reader is slow, or does not read",
                "The writer waits, or runs out of its time; its memory stays bounded; signals the other way are there "
                "within 100 ms. Not promised: that any passes what nobody reads on its own way, where SIGTERM follows "
                "a cancel after its grace; that a Task has little memory for signals that it does not ask for",
                (
                    _KIT + "test_a_slow_reader_holds_its_writer",
                    _KIT + "test_the_time_out_of_a_write",
                    _RESOURCES + "test_a_reader_that_is_stopped",
                    _RESOURCES + "test_signals_to_a_task_that_cannot_write",
                    _RESOURCES + "test_signals_of_a_task_that_does_not_read",
                ),
            ),
            Fault(
                "F31",
                "Both sides write before either reads",
                "All of it arrives",
                (_KIT + "test_both_directions_at_once", _RESOURCES + "test_nobody_listens_first"),
            ),
            Fault(
                "F32",
                "Many threads, signal handlers, `logging` and `__del__` send at once",
                "Each message arrives once and whole, those of a thread in their order; what interrupts a message of "
                "the same thread sends, or raises `BusyError`, and never waits",
                (
                    _RUN + "test_threads",
                    _RUN + "test_writers_of_every_kind",
                    _KIT + "test_many_writers",
                    _KIT + "test_a_handler_that_calls",
                ),
            ),
            Fault(
                "F33",
                "A Task forks",
                "The child gets `ForkedError`, the Task's channel is unharmed, and its death is noticed although the "
                "child has its descriptors; over `zmq` the run then ends a second later. Not promised: a channel "
                "of the child's own",
                (_RUN + "test_fork", _DEATH + "test_a_fork_outlives_the_task", _KIT + "test_a_fork_cannot_use_it"),
            ),
            Fault(
                "F34",
                "A program is run, as a Task or by one",
                "It has 0, 1 and 2, and no descriptor of tasklink",
                (_RUN + "test_programs_inherit_nothing", _KIT + "test_programs_inherit_nothing"),
            ),
            Fault(
                "F35",
                "One of several communicators breaks or stalls, in the middle of messages or of one of 1 GiB",
                "The others go on, and what it took is sent again over them: nothing is lost or doubled, and the order "
                "holds; it is named in `TaskResult.broken`",
                (
                    "tests/test_failover.py::test_in_the_middle_of_ten_thousand_messages",
                    "tests/test_failover.py::test_in_the_middle_of_a_large_result",
                    "tests/test_failover.py::test_in_the_middle_of_a_gibibyte",
                    "tests/test_failover.py::test_one_that_stalls",
                    _CORE + "test_link.py::test_random_breaks",
                    _CORE + "test_link.py::test_while_writing",
                    _CORE + "test_link.py::test_while_reading",
                    _HOSTILE + "test_one_of_two",
                    _SHM + "test_runs.py::test_several_at_once",
                ),
            ),
            Fault(
                "F36",
                "Messages take several ways, or are lost or doubled on one",
                "They are given once and in order; what is missing is named in `TaskResult.missing`",
                (
                    _CORE + "test_link.py::test_any_interleaving_with_duplicates",
                    _CORE + "test_link.py::test_losses_are_named",
                    "tests/test_protocols.py::test_routes_share_the_work",
                    _HOSTILE + "test_numbers",
                ),
            ),
            Fault(
                "F37",
                "The peer is gone before a message is written, or while it is",
                "`BrokenError`, at once, or over tcp after 2 s; `close` ends, and warns of what was not delivered",
                (
                    _ZMQ + "test_writing_on_without_reading",
                    _ZMQ + "test_a_connection_that_does_not_come_back",
                    _KIT + "test_a_peer_killed_while_it_reads",
                    _KIT + "test_writing_to_a_peer_that_closed",
                    _SHM + "test_ends.py::test_a_reader_that_is_killed",
                    _ZMQ + "test_a_peer_that_never_reads",
                ),
            ),
            Fault(
                "F38",
                "Nobody listens where a Task connects",
                "An error in its time, and the process ends",
                (_KIT + "test_nobody_listens", _CORE + "test_worker.py::test_none_can_be_connected"),
            ),
        ),
    ),
    Section(
        "Signals",
        "An Executor and its Task signal each other at any time, whatever else is under way.",
        (
            Fault(
                "F40",
                "Starts by the thousand, several at once",
                "None hangs, and each Task hears its first signal",
                ("tests/test_signals.py::test_every_start_gets_through",),
            ),
            Fault(
                "F41",
                "A signal while 1 GiB is under way, each way",
                "They do not wait for the whole of it; 99 of 100 are there within 50 ms, over `unix` within 100",
                (
                    _LARGE + "test_signals_beside_a_gibibyte_each_way",
                    _SHM + "test_segments.py::test_other_threads_run",
                    _CORE + "test_codec.py::test_other_threads_run_meanwhile",
                    _LARGE + "test_signal_overtakes_a_gibibyte",
                    _LARGE + "test_cancel_overtakes_a_gibibyte_on_its_way_out",
                    _LARGE + "test_cancel_overtakes_a_gibibyte_on_its_way_in",
                ),
            ),
            Fault(
                "F42",
                "A signal at any moment of a Task's life",
                "It is delivered, or `SignalNotDeliveredError` is raised. Not promised: that a Task which is about to "
                "return still looks at it",
                (
                    "tests/test_signals.py::test_signalled_at_a_random_moment",
                    _RUN + "test_signal_before_start",
                    _RUN + "test_signal_after_end",
                ),
            ),
            Fault(
                "F43",
                "A signal that the other side does not know, or with contents that it does not expect",
                "The channel goes on: one of a user is a message like others, one of tasklink's own prefix that is not "
                "known means nothing",
                (
                    _HOSTILE + "test_words_of_the_executor",
                    _HOSTILE + "test_logs",
                    _HOSTILE + "test_progress",
                    _CORE + "test_task.py::test_control_is_not_received",
                ),
            ),
        ),
    ),
    Section(
        "Captured output",
        "Whatever a program prints is bytes; nothing in them can do anything.",
        (
            Fault(
                "F50",
                "10 MB on stderr while nobody reads stdout; 1 GiB on both",
                "No hang: 10 MB in 0.5 s more than `subprocess.run` takes, 200 MB/s each",
                (_OUTPUT + "test_flood_on_stderr", _OUTPUT + "test_a_gibibyte_on_both_streams"),
            ),
            Fault(
                "F51",
                "A line of 1 GiB; progress bars, NUL, control sequences",
                "It arrives to the byte, in 64 MiB of memory; a line that is shown is cut where it is too long, and "
                "says so",
                (
                    _OUTPUT + "test_a_line_of_a_gibibyte",
                    _OUTPUT + "test_awkward_bytes",
                    _CORE + "test_cli_lines.py::test_any_limit_holds",
                    _CORE + "test_cli_lines.py::test_no_line_can_do_anything",
                ),
            ),
            Fault(
                "F52",
                "Bytes that are no UTF-8, characters that are cut",
                "Nothing raises; the bytes are kept, and shown escaped, however they were cut",
                (
                    _CORE + "test_cli_lines.py::test_any_cut_gives_the_same_lines",
                    _CORE + "test_vocabulary.py::test_records_of_others",
                    _OUTPUT + "test_awkward_bytes",
                ),
            ),
            Fault(
                "F53",
                "Text that looks like a pickle, or like our frames",
                "It is text: no class is ever looked up for it",
                (
                    "tests/test_fuzz_corpus.py::test_text_is_never_an_object",
                    "plugins/pipe/tests/test_runs.py::test_output_that_looks_like_messages",
                    "tests/fuzz/output.py",
                ),
            ),
            Fault(
                "F54",
                "Threads and processes print at once",
                "Each stream arrives to the byte, and lines of up to 4096 bytes whole. Not promised: longer lines of "
                "several processes, which the kernel mixes; the order of stdout and stderr between each other",
                (
                    _OUTPUT + "test_lines_of_many_writers",
                    "plugins/pipe/tests/test_ends.py::test_others_print_at_the_same_time",
                    "plugins/pipe/tests/test_runs.py::test_ten_megabytes_of_noise",
                ),
            ),
            Fault(
                "F55",
                "A Task crashes with text in its buffers",
                "Whole lines that a Task in Python has printed are there. Not promised: a line without its end, and "
                "what other programs keep in buffers",
                (
                    _OUTPUT + "test_output_is_there_before_the_crash",
                    _CORE + "test_worker.py::test_output_is_kept_in_lines",
                ),
            ),
            Fault(
                "F56",
                "A Task closes 0, 1 and 2, or becomes a daemon",
                "It runs to its end, and waiting for it takes no processor",
                (
                    _OUTPUT + "test_standard_descriptors_are_closed",
                    "plugins/pipe/tests/test_runs.py::test_the_task_closes_its_standard_descriptors",
                    "plugins/pty/tests/test_runs.py::test_closed_by_the_program",
                    _RUN + "test_descriptors_closed_under_us",
                ),
            ),
        ),
    ),
    Section(
        "Resources and time",
        "Memory, descriptors, processes, room or time run out, or are not what they seem.",
        (
            Fault(
                "F60",
                "10 000 Tasks, a third of them killed",
                "Descriptors, threads, processes and files are as before; memory grows by 5 MB in 1 000 runs at most",
                ("tests/test_many_runs.py::test_nothing_is_left_of_many_runs",),
            ),
            Fault(
                "F61",
                "No room: /dev/shm is full, memory or file sizes are limited",
                "The message takes another way, or is an `OSError` before it has begun; never SIGBUS",
                (
                    _SHM + "test_segments.py::test_no_memory",
                    _SHM + "test_segments.py::test_a_real_limit",
                    _SHM + "test_runs.py::test_no_memory_for_the_rings",
                    _RESOURCES + "test_none_for_a_copy",
                    _RESOURCES + "test_small_files",
                    _RESOURCES + "test_full_file_systems",
                ),
            ),
            Fault(
                "F62",
                "Descriptors run out, anywhere",
                "An `OSError` that says so, or success; nothing leaks, and running Tasks are unharmed",
                (
                    _RESOURCES + "test_the_ladder",
                    _CORE + "test_process.py::test_descriptors_run_out_anywhere",
                    _MEETING + "test_no_descriptors_left",
                    _SHM + "test_segments.py::test_no_descriptors",
                    _SHM + "test_segments.py::test_no_descriptors_to_listen",
                    _ZMQ + "test_few_descriptors",
                ),
            ),
            Fault(
                "F63",
                "No process or thread can be started",
                "NOT_STARTED, with the reason; nothing is left",
                (_RESOURCES + "test_none_is_allowed", _CORE + "test_process.py::test_guardian_that_cannot_watch"),
            ),
            Fault(
                "F64",
                "The clock is set by an hour, each time that somebody looks at it",
                "Nothing ends early or late: all waits are on the monotonic clock",
                (_RESOURCES + "test_the_clock_is_set",),
            ),
            Fault(
                "F65",
                "A Task is stopped for a while, and continued",
                "It is not taken for dead; all that it says afterwards arrives",
                (
                    _RESOURCES + "test_stopped_and_continued",
                    _ZMQ + "test_a_peer_that_is_stopped_over_tcp",
                    "tests/test_endings.py::test_ending",
                ),
            ),
            Fault(
                "F66",
                "Twenty times as many processes want the processors as there are",
                "All that was accepted is there; what was promised within 100 ms takes 500, for 9 of 10",
                (_DEATH + "test_killed_on_a_crowded_machine",),
            ),
            Fault(
                "F67",
                "A Task cuts off shared memory, or scribbles in it",
                "The seals refuse the one; the other is a `ProtocolError`, and the Executor lives",
                (
                    _SHM + "test_rings.py::test_its_seals",
                    _SHM + "test_rings.py::test_a_file_without_seals",
                    _SHM + "test_rings.py::test_a_peer_that_scribbles",
                    _SHM + "test_rings.py::test_random_rings",
                    "tests/fuzz/ring.py",
                ),
            ),
            Fault(
                "F68",
                "A path is too long or odd, its folder cannot be written, or its file system ignores modes",
                "An error before anything starts, with the path, the limit and the setting",
                (
                    _RESOURCES + "test_too_long",
                    _RESOURCES + "test_odd",
                    _RESOURCES + "test_read_only",
                    _FOLDER + "test_the_path_is_too_long",
                    _FOLDER + "test_the_file_system_did_something_else",
                    _FOLDER + "test_it_is_another_users",
                    _FOLDER + "test_there_is_no_such_place",
                ),
            ),
        ),
    ),
    Section(
        "Hostile peers",
        "Somebody else tries to get in, to read along, or to have code run.",
        (
            Fault(
                "F70",
                "Another user connects",
                "EACCES, whatever the umask; of root, whom no mode stops, nothing is heard",
                (
                    _SECURITY + "test_another_user",
                    _MEETING + "test_another_user_cannot_reach_it",
                    _MEETING + "test_another_user_whom_no_mode_keeps_out",
                    _MEETING + "test_only_this_user_can_connect",
                ),
            ),
            Fault(
                "F71",
                "This user connects with a wrong key, a recorded answer, or our own words",
                "It is refused and named in the log, nothing is decoded, and the next good peer is served",
                (
                    _SECURITY + "test_a_wrong_key",
                    _SECURITY + "test_a_borrowed_proof",
                    _SECURITY + "test_a_recorded_connection_over_tcp",
                    _SECURITY + "test_pickles_and_commands_at_the_door",
                    _MEETING + "test_a_wrong_key",
                    _MEETING + "test_a_recorded_handshake",
                    _MEETING + "test_nothing_is_decoded_before_the_key_is_proved",
                    _HANDSHAKE + "test_a_proof_sent_back_to_its_maker",
                    "tests/fuzz/handshake.py",
                ),
            ),
            Fault(
                "F72",
                "10 000 connect, or few that are slow",
                "16 at a time are heard, 2 s each; the good peer gets in within a second. Not promised: that number "
                "over tcp, where libzmq has no such limit; there each has 2 s, and 4 KiB at the port of the address "
                "or 1 MiB at those of a Task that is in; security.md says what 1,000 of them cost",
                (
                    _SECURITY + "test_a_flood",
                    _SECURITY + "test_a_claim",
                    _MEETING + "test_a_flood",
                    _MEETING + "test_no_more_than_sixteen",
                    _MEETING + "test_a_slow_one",
                    _ZMQ + "test_strangers_at_a_port",
                    _ZMQ + "test_a_claim",
                    _ZMQ + "test_a_claim_on_a_line",
                ),
            ),
            Fault(
                "F73",
                "An address beyond this machine",
                "Refused where nothing would be encrypted; a socket listens where it says, and nowhere else",
                (
                    _SECURITY + "test_no_abstract_socket_and_no_open_port",
                    _ZMQ + "test_hosts_that_are_refused",
                    _ZMQ + "test_tcp_listens_where_it_says",
                ),
            ),
            Fault(
                "F74",
                "Somebody looks for the key",
                "It is in no argument, environment, log, output or repr",
                (
                    _SECURITY + "test_it_is_nowhere",
                    "plugins/unix/tests/test_runs.py::test_it_is_nowhere_to_be_seen",
                    "plugins/pipe/tests/test_runs.py::test_it_is_nowhere_to_be_seen",
                    _CORE + "test_plan.py::test_what_others_see",
                ),
            ),
            Fault(
                "F75",
                "A Task that may send data only sends a pickle",
                "It is not decoded, whatever it is said to be",
                (
                    _SECURITY + "test_pickles",
                    _HOSTILE + "test_pickles",
                    _CORE + "test_link.py::test_pickles_where_only_data_is_allowed",
                ),
            ),
            Fault(
                "F76",
                "A peer proposes an older version, or to do without encryption",
                "It is refused: there is nothing to agree on",
                (
                    _SECURITY + "test_a_downgrade_of_the_handshake",
                    _SECURITY + "test_a_downgrade_of_the_encryption",
                    _SECURITY + "test_a_downgrade_of_the_wire",
                    _HANDSHAKE + "test_another_version",
                    _KIT + "test_a_newer_wire",
                ),
            ),
            Fault(
                "F77",
                "Somebody has made our path before us, or a link in its place",
                "Names are drawn; what is there is never taken over, and no link is followed",
                (
                    _SECURITY + "test_what_was_put_there_before",
                    _SECURITY + "test_a_runtime_directory_that_leads_elsewhere",
                    _FOLDER + "test_no_two_have_the_same_name",
                    _FOLDER + "test_a_link_is_not_followed",
                ),
            ),
            Fault(
                "F78",
                "A Task without trust nests deep, reports what nobody reads, or prints, without end",
                "What is too deep raises `DecodeError`; beyond 64 MiB that are kept, or 1 GiB of output, it is ended, "
                "and the error names the limit and where it is set. Not promised: over `zmq` that what it sends faster "
                "than it is read takes no memory",
                (
                    _CORE + "test_codec.py::test_a_limit_of_depth",
                    _CORE + "test_codec.py::test_depth_is_looked_at_before_it_is_parsed",
                    _CORE + "test_inbox.py::test_what_is_kept_is_bounded",
                    _SECURITY + "test_what_is_nested_deep",
                    _SECURITY + "test_a_flood_that_nobody_reads",
                    _SECURITY + "test_a_flood_that_is_not_kept",
                    _SECURITY + "test_output_without_end",
                    _SECURITY + "test_output_at_the_end",
                ),
            ),
        ),
    ),
)

FAULTS = {fault.id: fault for section in SECTIONS for fault in section.faults}


# What was measured


def measured() -> dict:
    """By the name of a test or target: how many runs there were, and the largest of what was seen, by its words."""
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}


def take_in(old: dict, reports: list[Path]) -> dict:
    """What was measured until now, with what the reports say of the tests that are named here.

    Raises:
        ValueError: one of these has failed.
    """
    names = {name for fault in FAULTS.values() for name in fault.tests}
    new = defaultdict(lambda: {"runs": 0, "seen": {}})
    for report in reports:
        text = report.read_text(errors="replace")
        for name, runs, seen in _of_tests(text) if text.startswith("<?xml") else _of_fuzzing(text):
            if runs is None and name in names:
                raise ValueError(f"{name} has failed: what it has seen is not shown")
            if not runs:
                continue
            entry = new[name]
            entry["runs"] += runs
            for number, words in seen:
                entry["seen"][words] = max(number, entry["seen"].get(words, 0))
    kept = {name: old.get(name, {"runs": 0, "seen": {}}) for name in sorted(names & (old.keys() | new.keys()))}
    return {
        name: new[name] if name in new and new[name]["runs"] >= entry["runs"] else entry for name, entry in kept.items()
    }


def _of_tests(text):
    """Name, runs and what was seen, of each test of a report of pytest; of one that has failed None for the runs."""
    for case in ElementTree.fromstring(text).iter("testcase"):
        if case.get("name") is None:
            continue  # the one in which all was interrupted
        parts = [part for part in case.get("classname").split(".") if not part.startswith("Test")]
        name = f"{'/'.join(parts)}.py::{case.get('name').partition('[')[0]}"
        if case.find("failure") is not None or case.find("error") is not None:
            yield name, None, ()
        elif case.find("skipped") is None:
            properties = [(found.get("name"), found.get("value")) for found in case.iter("property")]
            runs = sum(int(value) for key, value in properties if key == "runs") or 1
            seen = [_number_and_words(value) for key, value in properties if key == "seen"]
            yield name, runs, seen


def _number_and_words(text):
    found = re.fullmatch(r"(\d+(?:\.\d+)?) (\S.*)", text)
    if not found:
        raise ValueError(f"what was seen is a number and what it counts, as '17 ms at worst'; not {text!r}")
    return float(found[1]), found[2]


def _of_fuzzing(text):
    """The same of each target in the log of `tests.fuzz`."""
    for name, rest in re.findall(r"^== (\w+), \d+ s ==$(.*?)(?=^== |\Z)", text, re.DOTALL | re.MULTILINE):
        for count in re.findall(r"number_of_executed_units:\s*(\d+)", rest):
            yield f"tests/fuzz/{name}.py", int(count), []


# The page


def tables(found: dict) -> str:
    """All tables as Markdown, with what was measured."""
    return "\n".join(_section(section, found) for section in SECTIONS)


def _section(section, found):
    rows = ["| | what goes wrong | what is promised | proved by | runs | worst seen |", "| --- " * 6 + "|"]
    for fault in section.faults:
        entries = [found[name] for name in fault.tests if name in found]
        runs = f"{sum(entry['runs'] for entry in entries):,}".replace(",", " ") if entries else ""
        proofs = ", ".join(_link(name) for name in fault.tests)
        promise = fault.promise.replace(NOT_PROMISED, "*Not promised:* ")
        rows.append(f"| {fault.id} | {fault.what} | {promise} | {proofs} | {runs} | {_seen(entries)} |")
    return f"### {section.title}\n\n{section.words}\n\n" + "\n".join(rows) + "\n"


def _seen(entries):
    worst = {}
    for entry in entries:
        for words, number in entry["seen"].items():
            worst[words] = max(number, worst.get(words, 0))
    if worst:
        return "; ".join(f"{_rounded(number)} {words}" for words, number in worst.items())
    return "as promised" if entries else ""


def _rounded(number):
    return f"{number:.0f}" if number >= 100 or number == int(number) else f"{number:.2g}"


def _link(name):
    path, _, test = name.partition("::")
    words = test.removeprefix("test_").replace("_", " ") if test else f"fuzzing {Path(path).stem}"
    return f"[{words}](../../{path})"


def write(text: str, found: dict) -> str:
    """The page, with these tables in their place."""
    before, _, rest = text.partition("<!-- faults -->\n")
    return f"{before}<!-- faults -->\n{tables(found)}<!-- end -->{rest.partition('<!-- end -->')[2]}"


def main(reports: list[str]) -> None:
    """Take in reports, and write the page."""
    found = take_in(measured(), [Path(report) for report in reports])
    MEASURED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(write(DOCUMENT.read_text(), found))


if __name__ == "__main__":
    main(sys.argv[1:])
