//! What the attribute refuses, and where the compiler points then.
//!
//! `TRYBUILD=overwrite cargo test -p stallscope-macros --test refused` writes the files anew.

#[test]
fn what_is_no_test_is_refused_where_it_is_written() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
