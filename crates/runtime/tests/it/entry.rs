//! Turns this executable into a shim (`shim <directory>`) or a probe (`probe <what> …`) before its `main` runs, so that
//! no executable of its own is needed and the harness stays the usual one.

use std::{ffi::CStr, os::unix::ffi::OsStrExt, path::Path};

#[used]
#[unsafe(link_section = ".init_array")]
static ENTRY: extern "C" fn(libc::c_int, *const *const libc::c_char) = entry;

extern "C" fn entry(count: libc::c_int, arguments: *const *const libc::c_char) {
    let argument = |n: usize| {
        // SAFETY: the C library passes `main`'s own arguments to initialisers: `count` strings.
        (n < count as usize).then(|| unsafe { CStr::from_ptr(*arguments.add(n)) })
    };
    let code = match (argument(1).map(CStr::to_bytes), argument(2)) {
        (Some(b"shim"), Some(directory)) => {
            dozen_runtime::shim::main(Path::new(std::ffi::OsStr::from_bytes(directory.to_bytes())))
        }
        (Some(b"builder"), Some(phase)) => crate::builder::run(&phase.to_string_lossy()),
        (Some(b"probe"), Some(what)) => {
            let rest: Vec<_> = (3..).map_while(argument).map(|text| text.to_string_lossy().into_owned()).collect();
            crate::probe::run(&what.to_string_lossy(), &rest)
        }
        _ => return,
    };
    std::process::exit(code);
}
