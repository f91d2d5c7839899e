//! Longer texts: what the crate says, and how it works.

pub mod events {
    //! Stalls as tracing events.
    //!
    //! Target `stallscope`. CRITICAL stalls are ERROR, HIGH ones WARN, MEDIUM ones
    //! INFO and MONITOR ones DEBUG. The parent is the span in which the stalled
    //! future was first polled, where there is one: an event of a stall that is over
    //! can come after the end of its span, and has none then.
    //!
    //! | field | meaning |
    //! |---|---|
    //! | `stall_id` | the same in all events of a stall |
    //! | `phase` | `started`, `escalated` or `ended` |
    //! | `severity` | `MONITOR`, `MEDIUM`, `HIGH` or `CRITICAL` |
    //! | `kind` | `poll` or `turn` |
    //! | `task` | name of the watched future |
    //! | `task_id` | tokio's id of the task |
    //! | `location` | where the future was given its name, `file:line` |
    //! | `worker` | index of the worker that is held up |
    //! | `duration_ms` | how long it has lasted |
    //! | `cause` | why it does not return |
    //! | `culprit` | the innermost function of the user's code, with file and line |
    //! | `leaf` | what it called |
    //! | `suppressed` | stalls of this culprit that were not told before this one |
    //!
    //! Of each culprit five stalls are told at once and one more a second; a HIGH
    //! or CRITICAL one always. What is kept back is counted: in `suppressed` of the
    //! next that is told, at the watchdog's drop, and in
    //! [`Health::suppressed`](crate::Health::suppressed). Callbacks and reports
    //! have all of them.
    //!
    //! Without a subscriber nothing is told and nothing is printed.
}
