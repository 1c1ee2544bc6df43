//! Which tests run. The only place that reads the environment: a test has no command line of its own.

/// Whether tests against containers run. Begin each with
/// `if !keyroll_testkit::containers_wanted() { return; }`.
///
/// True when `KEYROLL_CONTAINER_TESTS=1` (set by `cargo xtask test`): then a missing engine or image fails the test. Otherwise
/// a line says that the test was skipped.
pub fn containers_wanted() -> bool {
    wanted(
        "KEYROLL_CONTAINER_TESTS",
        "container tests run with `cargo xtask test`",
    )
}

/// Whether the longer tests run too: `KEYROLL_FULL_TESTS=1`, set by `cargo xtask test --full`.
pub fn full_wanted() -> bool {
    wanted(
        "KEYROLL_FULL_TESTS",
        "longer tests run with `cargo xtask test --full`",
    )
}

fn wanted(variable: &str, hint: &str) -> bool {
    let wanted = std::env::var_os(variable).is_some_and(|value| value == "1");
    if !wanted {
        println!("skipped: {hint}");
    }
    wanted
}
