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
fn code_is_named_by_crates_or_whole_folders() {
    for bad in [
        "",
        " ",
        "our store",
        "a::b",
        "/",
        "/app",
        "src/li",
        " src/",
        "src/\n/",
        "\n",
    ] {
        for (field, builder) in [
            ("user_code", Builder::new().user_code([bad])),
            ("library_code", Builder::new().library_code(["serde", bad])),
        ] {
            let text = problem(builder);
            let named = text.contains(&format!("`{field}`")) && text.contains("whole folders");
            assert!(named && !text.contains('\n'), "{bad:?}: {text}");
        }
    }
    let both = Builder::new().user_code(["our-store"]);
    let text = problem(both.library_code(["our_store"]));
    assert!(
        text.contains("`user_code`") && text.contains("`library_code`"),
        "{text}"
    );
    let text = problem(Builder::new().library_code((0..257).map(|n| format!("c{n}"))));
    assert!(text.contains("257") && text.contains("directory"), "{text}");
    let good = [
        "our-store",
        "our_app",
        "/app/",
        "crates/x/",
        "/src/generated.rs",
        "a/b/",
    ];
    Builder::new().user_code(good).check().unwrap();
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
