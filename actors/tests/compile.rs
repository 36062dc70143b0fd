//! What `#[actor]` says to mistakes.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
