//! What the settings accept, and what they say where they do not.

use super::*;

fn problem(builder: Builder) -> String {
    let error = builder.check().unwrap_err();
    assert!(error.is_config());
    error.to_string()
}

#[test]
fn bad_settings_are_named_with_the_remedy() {
    let builder = Builder::new;
    let text = problem(builder().tick(Duration::ZERO));
    assert!(text.contains("`tick`") && text.contains("half"), "{text}");
    let text = problem(builder().tick(Duration::from_millis(11)));
    assert!(
        text.contains("`tick`") && text.contains("thresholds.monitor"),
        "{text}"
    );
    let text = problem(builder().thresholds(Thresholds {
        monitor: Duration::from_secs(9),
        ..Thresholds::default()
    }));
    assert!(text.contains("thresholds.medium"), "{text}");
    #[cfg(target_os = "linux")]
    for signal in [0, 9, 11, 19, 65, -1] {
        let text = problem(builder().signal(Some(signal)));
        assert!(
            text.contains("`signal`") && text.contains("SIGURG"),
            "{text}"
        );
    }
    let text = problem(builder().stuck_after(Some(Duration::ZERO)));
    assert!(
        text.contains("`stuck_after`") && text.contains("None"),
        "{text}"
    );
    let text = problem(builder().lag_period(Some(Duration::ZERO)));
    assert!(
        text.contains("`lag_period`") && text.contains("None"),
        "{text}"
    );
}

#[test]
fn only_a_signal_that_is_set_is_chosen() {
    let number = DEFAULT_SIGNAL;
    let of = |chosen| SignalUse::Signal { number, chosen };
    assert_eq!(Builder::new().signal_use(), of(false));
    let set = Builder::new().signal(Some(number));
    assert_eq!(set.signal_use(), of(true));
    assert_eq!(Builder::new().signal(None).signal_use(), SignalUse::Off);
}

#[test]
fn the_presets_are_accepted() {
    for thresholds in [Thresholds::default(), Thresholds::low_latency()] {
        Builder::new().thresholds(thresholds).check().unwrap();
    }
}

#[test]
fn there_must_be_a_runtime() {
    let error = Builder::new().start().unwrap_err();
    assert!(error.is_no_runtime());
    assert!(error.to_string().contains("start_on"), "{error}");
}
