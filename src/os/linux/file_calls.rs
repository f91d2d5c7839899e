//! The system calls that read or change what is on a disk, by their numbers.
//!
//! For calls that are made by their numbers: by `syscall`, as the C library has it. Of those
//! that have a descriptor and may wait for anything, such as `read`, nothing is said here.
//! `stat` and its like are not among them: they hardly ever need the disk.

use crate::os::platform::syscalls::syscall_name;

/// On all architectures.
const CALLS: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_chdir,
    libc::SYS_chroot,
    libc::SYS_copy_file_range,
    libc::SYS_execveat,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pivot_root,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_quotactl,
    libc::SYS_readahead,
    libc::SYS_removexattr,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_setxattr,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_symlinkat,
    libc::SYS_sync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_truncate,
    libc::SYS_umount2,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// Which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_fchmodat2,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_open,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_symlink,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[i64] = &[];

/// The name of such a call.
pub(super) fn file_call(number: i64) -> Option<&'static str> {
    let is_one = CALLS.contains(&number) || LEGACY.contains(&number);
    is_one.then(|| syscall_name(number)).flatten()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// What the kernel has besides: calls that wait for others or for devices, which are
    /// noted where the C library has a function for them, and calls that do neither.
    const OTHERS: &str = "
        _sysctl accept accept4 access add_key adjtimex afs_syscall alarm arch_prctl bind
        bpf brk capget capset clock_adjtime clock_getres clock_gettime clock_nanosleep
        clock_settime clone clone3 close close_range connect delete_module dup dup2 dup3
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
        epoll_wait epoll_wait_old eventfd eventfd2 execve exit exit_group faccessat
        faccessat2 fadvise64 fanotify_init fanotify_mark fcntl finit_module flock fork
        fsconfig fsmount fsopen fspick fstat fstatfs futex futex_waitv get_mempolicy
        get_robust_list get_thread_area getcpu getcwd getegid geteuid getgid getgroups
        getitimer getpeername getpgid getpgrp getpid getpmsg getppid getpriority
        getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt
        gettid gettimeofday getuid init_module inotify_add_watch inotify_init
        inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_setup
        io_submit io_uring_enter io_uring_register io_uring_setup ioctl ioperm iopl
        ioprio_get ioprio_set kcmp kexec_file_load kexec_load keyctl kill
        landlock_add_rule landlock_create_ruleset landlock_restrict_self listen
        lookup_dcookie lseek lstat madvise mbind membarrier memfd_create memfd_secret
        migrate_pages mincore mlock mlock2 mlockall mmap modify_ldt mount_setattr
        move_mount move_pages mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
        mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
        munlockall munmap nanosleep newfstatat nfsservctl open_tree pause
        perf_event_open personality pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2
        pkey_alloc pkey_free pkey_mprotect poll ppoll prctl prlimit64 process_madvise
        process_mrelease process_vm_readv process_vm_writev pselect6 ptrace putpmsg
        quotactl_fd read readlink readlinkat readv reboot recvfrom recvmmsg recvmsg
        remap_file_pages request_key restart_syscall rseq rt_sigaction rt_sigpending
        rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
        rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
        sched_getaffinity sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler sched_yield seccomp security select semctl semget semop
        semtimedop sendfile sendmmsg sendmsg sendto set_mempolicy
        set_mempolicy_home_node set_robust_list set_thread_area set_tid_address
        setdomainname setfsgid setfsuid setgid setgroups sethostname setitimer setns
        setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid
        setsockopt settimeofday setuid shmat shmctl shmdt shmget shutdown sigaltstack
        signalfd signalfd4 socket socketpair splice stat statfs statx sysfs sysinfo
        syslog tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
        timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill tuxcall
        umask uname unshare uselib userfaultfd ustat vfork vhangup vmsplice vserver
        wait4 waitid write writev
    ";

    /// Numbers that no call has (kernel 6.18, `arch/x86/entry/syscalls/syscall_64.tbl`).
    const UNUSED: std::ops::Range<i64> = 335..424;

    /// Which the crate `libc` has no number for: three that the kernel has no more
    /// (`create_module`, `get_kernel_syms`, `query_module`), `io_pgetevents`,
    /// `cachestat`,
    /// `map_shadow_stack`, those of futexes and the like of `statmount`.
    const NAMELESS: [i64; 14] = [
        174, 177, 178, 333, 451, 453, 454, 455, 456, 457, 458, 459, 460, 461,
    ];

    /// The C library's numbers are what is compiled in; the kernel's decide. Where its
    /// headers are not installed, there is nothing to compare.
    #[test]
    fn numbers_and_names_are_the_kernels() {
        let header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
        let header = std::fs::read_to_string(header).unwrap_or_default();
        for line in header.lines() {
            let call = line.strip_prefix("#define __NR_");
            let Some((name, number)) = call.and_then(|call| call.split_once(' ')) else {
                continue;
            };
            let number: i64 = number.trim().parse().unwrap();
            if number <= libc::SYS_mseal && !NAMELESS.contains(&number) {
                assert_eq!(syscall_name(number), Some(name), "{number}");
            }
        }
    }

    #[test]
    fn each_call_of_the_kernel_is_judged() {
        let last = libc::SYS_mseal;
        let others: Vec<&str> = OTHERS.split_whitespace().collect();
        for number in
            (0..=last).filter(|number| !UNUSED.contains(number) && !NAMELESS.contains(number))
        {
            let Some(name) = syscall_name(number) else {
                panic!("{number} has no name");
            };
            let (is_one, is_other) = (file_call(number).is_some(), others.contains(&name));
            assert!(is_one != is_other, "{number} {name}: {is_one} {is_other}");
        }
        assert_eq!(file_call(libc::SYS_utimensat), Some("utimensat"));
    }
}
