//! Names of the system calls that threads block in.

macro_rules! names {
    ($($name:ident),* $(,)?) => {
        /// The name of a system call; `None` for one that is not in the list.
        pub(crate) fn syscall_name(number: i64) -> Option<&'static str> {
            $(if number == libc::$name {
                return stringify!($name).strip_prefix("SYS_");
            })*
            legacy_name(number)
        }
    };
}

names!(
    SYS_futex,
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_fsync,
    SYS_fdatasync,
    SYS_sync,
    SYS_syncfs,
    SYS_sync_file_range,
    SYS_openat,
    SYS_close,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_renameat,
    SYS_unlinkat,
    SYS_mkdirat,
    SYS_getdents64,
    SYS_statx,
    SYS_newfstatat,
    SYS_fstat,
    SYS_connect,
    SYS_accept,
    SYS_accept4,
    SYS_recvfrom,
    SYS_sendto,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvmmsg,
    SYS_sendmmsg,
    SYS_shutdown,
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_wait4,
    SYS_waitid,
    SYS_flock,
    SYS_fcntl,
    SYS_ioctl,
    SYS_splice,
    SYS_sendfile,
    SYS_copy_file_range,
    SYS_msgrcv,
    SYS_msgsnd,
    SYS_semop,
    SYS_semtimedop,
    SYS_io_uring_enter,
    SYS_io_getevents,
    SYS_mmap,
    SYS_munmap,
    SYS_mprotect,
    SYS_madvise,
    SYS_msync,
    SYS_mlock,
    SYS_brk,
    SYS_sched_yield,
    SYS_clone,
    SYS_clone3,
    SYS_execve,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_getrandom,
);

/// Calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
fn legacy_name(number: i64) -> Option<&'static str> {
    let name = match number {
        libc::SYS_poll => "poll",
        libc::SYS_select => "select",
        libc::SYS_epoll_wait => "epoll_wait",
        libc::SYS_open => "open",
        libc::SYS_stat => "stat",
        libc::SYS_rename => "rename",
        libc::SYS_unlink => "unlink",
        libc::SYS_mkdir => "mkdir",
        libc::SYS_pause => "pause",
        libc::SYS_vfork => "vfork",
        _ => return None,
    };
    Some(name)
}

#[cfg(not(target_arch = "x86_64"))]
const fn legacy_name(_number: i64) -> Option<&'static str> {
    None
}
