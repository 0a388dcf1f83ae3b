//! Builds anew when the user interface was.

fn main() {
    let dist = std::path::Path::new("../../ui/dist");
    // Cargo takes a path that is not there for changed, each time. Where it cannot be made, each
    // build makes this crate again, which is right as well.
    let _ = std::fs::create_dir_all(dist);
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=build.rs");
}
