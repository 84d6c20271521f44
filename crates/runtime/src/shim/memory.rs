//! Keeps the two processes that every dyno has small: what only their start needed goes back to the kernel.

/// Gives free heap back, and unmaps the pages of code and constants that the start has touched.
///
/// Those pages stay in the page cache and come back one by one as they are needed, which for a process that mostly
/// waits is a handful.
pub(crate) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number alone.
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the callback matches the signature that is asked for and keeps none of what it is shown.
    unsafe { libc::dl_iterate_phdr(Some(drop_constants), std::ptr::null_mut()) };
}

/// Unmaps the pages of one loaded object that nobody ever wrote to.
unsafe extern "C" fn drop_constants(object: *mut libc::dl_phdr_info, _size: usize, _data: *mut libc::c_void) -> i32 {
    // SAFETY: the dynamic linker hands over a valid description of an object that stays loaded.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    // SAFETY: asks for a number.
    let Ok(page) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return 1 };
    let constant = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
    for header in headers.iter().filter(constant) {
        let start = base + header.p_vaddr as usize;
        let end = start + header.p_memsz as usize;
        // A page at an edge may be shared with writable data: only whole pages go.
        let (first, last) = (start.next_multiple_of(page), end - end % page);
        if first < last {
            // SAFETY: the range is a private mapping of a file that was never written to: dropped pages are read again.
            unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_DONTNEED) };
        }
    }
    0
}
