//! The binary carries no symbols. `strip` in the profile would take them from the benches, too, whose functions
//! callgrind finds by name, and would compile every crate a second time for them.

use std::env;
use std::io::{self, Write};

fn main() -> io::Result<()> {
    let linux = env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "linux");
    let mut cargo = io::stdout();
    writeln!(cargo, "cargo::rerun-if-changed=build.rs")?;
    if linux {
        writeln!(cargo, "cargo::rustc-link-arg-bins=-Wl,--strip-all")?;
    }
    Ok(())
}
