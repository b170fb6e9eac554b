//! How the program is linked.

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by variables")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Each job starts this program twice, as its supervisor and as the first process of its sandbox, and would wait each time
    // until the loader has put an address into every entry of the tables of shapes; docs/decisions/0022 has what that takes.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
