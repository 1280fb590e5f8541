//! How properties are tried.

use proptest::test_runner::{Config, FileFailurePersistence};

/// So many cases, or more if `PROPTEST_CASES` says so. The seed of a case that fails is kept beside the file of its
/// property, `model.rs` in `model.proptest-regressions`, and is tried first from then on.
pub(crate) fn cases(usual: u32) -> Config {
    let persistence = FileFailurePersistence::WithSource("proptest-regressions");
    let usual_or_more = usual.max(Config::default().cases);
    Config { cases: usual_or_more, failure_persistence: Some(Box::new(persistence)), ..Config::default() }
}
