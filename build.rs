//! Links the executable at a fixed address.
//!
//! Every dyno has two processes of this executable (its shim and the container's first process). Position-independent,
//! each would relocate half a megabyte of tables at its start and keep that to itself; at a fixed address these pages
//! stay shared. The stack, the heap and the libraries are still placed at random.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
