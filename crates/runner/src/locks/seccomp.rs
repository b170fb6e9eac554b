//! The system calls that a job is refused: a second lock behind namespaces and missing privileges.
//!
//! The list names what is refused, not what is allowed: numeric libraries use far more of the kernel than any
//! list of ours would know. A refused call fails with an error that programs handle; nothing is killed for it.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Calls that fail with EPERM whatever their arguments are.
const REFUSED: &[libc::c_long] = &[
    // The file system's layout.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Keys of the kernel are not kept apart by namespaces.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_setns,
];

/// More of them that only this processor has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Calls that a kernel may lack: programs then do without. The flags of `clone3` lie in memory, where a filter
/// cannot look, so that the C library is sent back to `clone`.
const ABSENT: &[libc::c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Making namespaces: each opens code of the kernel that is otherwise closed to ordinary users.
const NAMESPACE_FLAGS: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Shares its bit with the exit signal of `clone`, so it is refused for `unshare` only.
const CLONE_NEWTIME: u64 = 0x80;

/// Kinds of sockets that a job may open. All others are refused: `AF_VSOCK`, for one, leads out of a virtual
/// machine whatever the network namespace.
const SOCKET_FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// On x86-64 the same calls can be reached by numbers with this bit, where the kernel was built so.
#[cfg(target_arch = "x86_64")]
const SECOND_NUMBERING: Option<i64> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const SECOND_NUMBERING: Option<i64> = None;

/// Refuses the calls for this process, which must have one thread, and all that it starts.
///
/// # Errors
/// Why the lock does not hold.
pub(crate) fn engage() -> Result<(), String> {
    for program in programs()? {
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn programs() -> Result<[BpfProgram; 2], String> {
    Ok([filter(refused()?, libc::EPERM)?, filter(plain(ABSENT), libc::ENOSYS)?])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter(mut rules: Rules, error_number: libc::c_int) -> Result<BpfProgram, String> {
    if let Some(bit) = SECOND_NUMBERING {
        let again: Rules = rules.iter().map(|(call, rules)| (call | bit, rules.clone())).collect();
        rules.extend(again);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let action = SeccompAction::Errno(error_number.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture);
    filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())
}

/// Rules without conditions.
fn plain(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn refused() -> Result<Rules, String> {
    let mut rules = plain(REFUSED);
    rules.extend(plain(REFUSED_HERE));
    let namespaces = |flags: &[u64]| -> Result<Vec<SeccompRule>, String> {
        flags.iter().map(|flag| rule(&[(0, SeccompCmpOp::MaskedEq(*flag), *flag)])).collect()
    };
    let flags: Vec<u64> = NAMESPACE_FLAGS.iter().map(|flag| u64::from(flag.cast_unsigned())).collect();
    rules.insert(libc::SYS_clone, namespaces(&flags)?);
    rules.insert(libc::SYS_unshare, namespaces(&[&flags[..], &[CLONE_NEWTIME]].concat())?);
    let other_family: Vec<_> = SOCKET_FAMILIES
        .iter()
        .map(|family| (0, SeccompCmpOp::Ne, u64::from(family.cast_unsigned())))
        .collect();
    rules.insert(libc::SYS_socket, vec![rule(&other_family)?]);
    let device = |argument| -> Result<Vec<SeccompRule>, String> {
        [libc::S_IFCHR, libc::S_IFBLK]
            .iter()
            .map(|kind| {
                rule(&[(argument, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), u64::from(*kind))])
            })
            .collect()
    };
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, device(1)?);
    rules.insert(libc::SYS_mknodat, device(2)?);
    Ok(rules)
}

/// A rule that matches when all conditions hold: number of the argument, comparison, value.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, String> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        // The kernel itself looks at no more than 32 bits of these arguments.
        .map(|(argument, comparison, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, comparison.clone(), *value)
        })
        .collect();
    conditions.and_then(SeccompRule::new).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_stay_small() {
        for program in programs().unwrap() {
            assert!((10..1_000).contains(&program.len()), "{} instructions", program.len());
        }
    }
}
