//! Compiling a policy for system calls to a BPF program: seccomp(2).
//!
//! The program is a balanced tree of comparisons over ranges of numbers: a call runs about seven instructions in place
//! of a hundred or more, and the program is small enough to be stored as text.

use crate::sys::seccomp::Instruction;

/// What the kernel does with a call: the return value of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// The call fails with this error.
    Errno(u16),
    /// The process is killed by SIGSYS.
    Kill,
    /// SIGSYS kills the thread.
    KillThread,
    /// The thread gets SIGSYS, which it can handle.
    Trap,
    /// The tracer gets this number and decides; without a tracer the call fails with ENOSYS.
    Trace(u16),
    /// The call is logged and made.
    Log,
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Trace(data) => libc::SECCOMP_RET_TRACE | u32::from(data),
            Self::Log => libc::SECCOMP_RET_LOG,
        }
    }
}

/// A test of the low 32 bits of an argument. The kernel ignores the other bits of the arguments that are tested here
/// (an int, an unsigned int, and the flags of clone).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// One of these bits is set.
    AnyBit(u32),
    /// It is one of these values.
    OneOf(&'static [u32]),
}

/// A comparison of all 64 bits of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub arg: u8,
    pub operator: Operator,
    pub value: u64,
}

/// How an argument is compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// The argument, masked with this, is equal to the value.
    MaskedEqual(u64),
}

/// An action, taken if all conditions are met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    pub all: Vec<Condition>,
    pub then: Action,
}

/// The rule for a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Do(Action),
    /// Depends on argument `arg`.
    If {
        arg: u8,
        test: Test,
        then: Action,
        otherwise: Action,
    },
    /// The first clause whose conditions are met decides.
    First {
        clauses: Vec<Clause>,
        otherwise: Action,
    },
}

/// Rules by system call number. The numbers are small and dense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(Vec<Option<Rule>>);

impl Rules {
    /// The rule for a number.
    pub(super) fn get(&self, number: u16) -> Option<&Rule> {
        self.0.get(usize::from(number))?.as_ref()
    }

    /// Sets the rule for a number.
    pub(super) fn set(&mut self, number: u16, rule: Rule) {
        let number = usize::from(number);
        if self.0.len() <= number {
            self.0.reserve(512_usize.saturating_sub(self.0.len()));
            self.0.resize(number + 1, None);
        }
        self.0[number] = Some(rule);
    }

    /// All rules in order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &Rule)> {
        self.0.iter().enumerate().filter_map(|(number, rule)| Some((number as u16, rule.as_ref()?)))
    }
}

/// The rules for all system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// By number.
    pub rules: Rules,
    /// For numbers without a rule.
    pub otherwise: Action,
}

const LD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JA: u16 = 0x05; // BPF_JMP | BPF_JA
const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JSET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RET: u16 = 0x06; // BPF_RET | BPF_K

// Offsets in struct seccomp_data.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

#[cfg(target_arch = "x86_64")]
pub(super) const NATIVE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
pub(super) const NATIVE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// Numbers of the x32 ABI have this bit. Its architecture number is that of native calls.
#[cfg(target_arch = "x86_64")]
pub(super) const X32_BIT: u32 = 0x4000_0000;

fn stmt(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn ret(action: Action) -> Instruction {
    stmt(RET, action.value())
}

/// Compiles `policy`.
///
/// Calls through another ABI than the native one are refused: the 32-bit ABI of the architecture (int 0x80 and 32-bit
/// programs) has other numbers, and leads to rarely used code of the kernel. Such a call kills the process by SIGSYS. A
/// call of the x32 ABI fails with ENOSYS, as on a kernel without x32.
pub(super) fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![stmt(LD, ARCH), jump(JEQ, NATIVE, 1, 0), ret(Action::Kill), stmt(LD, NR)];
    #[cfg(target_arch = "x86_64")]
    program.extend([jump(JGE, X32_BIT, 0, 1), ret(Action::Errno(libc::ENOSYS as u16))]);
    let otherwise = Rule::Do(policy.otherwise);
    tree(&ranges(policy, &otherwise), &mut program);
    program
}

/// The ranges of numbers with the same rule: the first number of each, in order, beginning with 0.
fn ranges<'a>(policy: &'a Policy, otherwise: &'a Rule) -> Vec<(u32, &'a Rule)> {
    let mut ranges = vec![(0, otherwise)];
    let mut add = |from, rule| {
        if ranges.last().is_some_and(|(at, _)| *at == from) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, before)| *before != rule) {
            ranges.push((from, rule));
        }
    };
    for (number, rule) in policy.rules.iter() {
        let number = u32::from(number);
        add(number, rule);
        add(number + 1, otherwise);
    }
    ranges
}

/// Appends the code for calls whose number is in `ranges`, with the number in the accumulator.
fn tree(ranges: &[(u32, &Rule)], code: &mut Vec<Instruction>) {
    if let [(_, rule)] = ranges {
        return leaf(rule, code);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let at = code.len();
    let fork = |jt, jf| jump(JGE, high[0].0, jt, jf);
    code.push(fork(0, 0));
    tree(low, code);
    let span = code.len() - at - 1;
    // A conditional jump skips at most 255 instructions, an unconditional one any number.
    match u8::try_from(span) {
        Ok(span) => code[at] = fork(span, 0),
        Err(_) => {
            code[at] = fork(0, 1);
            code.insert(at + 1, stmt(JA, span as u32));
        }
    }
    tree(high, code);
}

fn leaf(rule: &Rule, code: &mut Vec<Instruction>) {
    match rule {
        Rule::Do(action) => code.push(ret(*action)),
        Rule::If { arg, test, then, otherwise } => {
            code.push(stmt(LD, ARGS + 8 * u32::from(*arg)));
            match test {
                Test::AnyBit(mask) => code.push(jump(JSET, *mask, 1, 0)),
                Test::OneOf(values) => {
                    for (i, value) in values.iter().enumerate() {
                        let to_then = values.len() - i;
                        code.push(jump(JEQ, *value, to_then as u8, 0));
                    }
                }
            }
            code.extend([ret(*otherwise), ret(*then)]);
        }
        Rule::First { clauses, otherwise } => {
            clauses.iter().for_each(|clause| clause_code(clause, code));
            code.push(ret(*otherwise));
        }
    }
}

/// The target of a jump in the code of a condition.
#[derive(Clone, Copy)]
enum Way {
    /// The next instruction.
    On,
    /// After the condition, which is met.
    Met,
    /// After the clause.
    Failed,
}

/// Appends the code of a clause. Jumps span at most 255 instructions; the code of six conditions is shorter.
fn clause_code(clause: &Clause, code: &mut Vec<Instruction>) {
    let parts: Vec<_> = clause.all.iter().map(condition_code).collect();
    let mut left: usize = parts.iter().map(Vec::len).sum();
    for part in parts {
        let length = part.len();
        for (at, (instruction, met, failed)) in part.into_iter().enumerate() {
            let span = |way| match way {
                Way::On => 0,
                Way::Met => length - at - 1,
                // Over the remaining conditions and the return.
                Way::Failed => left - at,
            };
            let (jt, jf) = (span(met) as u8, span(failed) as u8);
            code.push(Instruction { jt, jf, ..instruction });
        }
        left -= length;
    }
    code.push(ret(clause.then));
}

/// The instructions of a condition, each with its targets when its test is true and false. The upper half of the
/// argument is tested first.
fn condition_code(condition: &Condition) -> Vec<(Instruction, Way, Way)> {
    use Way::{Failed, Met, On};
    let Condition { arg, operator, value } = *condition;
    let (high, low) = ((value >> 32) as u32, value as u32);
    let load = |word: u32| (stmt(LD, ARGS + 8 * u32::from(arg) + word), On, On);
    let test = |code, k, met, failed| (jump(code, k, 0, 0), met, failed);
    let (upper, lower) = (load(4), load(0));
    match operator {
        Operator::Equal => vec![upper, test(JEQ, high, On, Failed), lower, test(JEQ, low, Met, Failed)],
        Operator::NotEqual => vec![upper, test(JEQ, high, On, Met), lower, test(JEQ, low, Failed, Met)],
        Operator::MaskedEqual(mask) => vec![
            upper,
            (stmt(AND, (mask >> 32) as u32), On, On),
            test(JEQ, high, On, Failed),
            lower,
            (stmt(AND, mask as u32), On, On),
            test(JEQ, low, Met, Failed),
        ],
        Operator::Greater | Operator::GreaterOrEqual => {
            let last = if operator == Operator::Greater { JGT } else { JGE };
            vec![upper, test(JGT, high, Met, On), test(JEQ, high, On, Failed), lower, test(last, low, Met, Failed)]
        }
        Operator::Less | Operator::LessOrEqual => {
            let last = if operator == Operator::Less { JGE } else { JGT };
            vec![upper, test(JGT, high, Failed, On), test(JEQ, high, On, Met), lower, test(last, low, Failed, Met)]
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program on a call as the kernel does; panics if it leaves the program.
    pub(in crate::confine) fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(nr.to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        let (mut a, mut pc) = (0u32, 0usize);
        loop {
            let i = program[pc];
            pc += 1;
            let mut branch = |yes: bool| pc += usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LD => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
                JA => pc += i.k as usize,
                JEQ => branch(a == i.k),
                JGT => branch(a > i.k),
                AND => a &= i.k,
                JGE => branch(a >= i.k),
                JSET => branch(a & i.k != 0),
                RET => return i.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn expected(policy: &Policy, nr: u32, args: [u64; 6]) -> u32 {
        let rule = u16::try_from(nr).ok().and_then(|nr| policy.rules.get(nr));
        match rule {
            None => policy.otherwise.value(),
            Some(Rule::Do(action)) => action.value(),
            Some(Rule::If { arg, test, then, otherwise }) => {
                let value = args[usize::from(*arg)] as u32;
                let holds = match test {
                    Test::AnyBit(mask) => value & mask != 0,
                    Test::OneOf(values) => values.contains(&value),
                };
                if holds { then.value() } else { otherwise.value() }
            }
            Some(Rule::First { clauses, otherwise }) => {
                let met = |condition: &Condition| {
                    let (arg, value) = (args[usize::from(condition.arg)], condition.value);
                    match condition.operator {
                        Operator::NotEqual => arg != value,
                        Operator::Less => arg < value,
                        Operator::LessOrEqual => arg <= value,
                        Operator::Equal => arg == value,
                        Operator::GreaterOrEqual => arg >= value,
                        Operator::Greater => arg > value,
                        Operator::MaskedEqual(mask) => arg & mask == value,
                    }
                };
                let first = clauses.iter().find(|clause| clause.all.iter().all(met));
                first.map_or(*otherwise, |clause| clause.then).value()
            }
        }
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Allow),
            Just(Action::Kill),
            Just(Action::Log),
            Just(Action::Trap),
            Just(Action::KillThread),
            (1u16..134).prop_map(Action::Errno),
            (1u16..134).prop_map(Action::Trace)
        ]
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let operator = prop_oneof![
            Just(Operator::NotEqual),
            Just(Operator::Less),
            Just(Operator::LessOrEqual),
            Just(Operator::Equal),
            Just(Operator::GreaterOrEqual),
            Just(Operator::Greater),
            any::<u64>().prop_map(Operator::MaskedEqual),
            Just(Operator::MaskedEqual(0x7)),
        ];
        // Upper and lower halves that equal those of the arguments under test often enough.
        let value = prop_oneof![any::<u64>(), 0u64..45, (0u64..45).prop_map(|low| 7 << 32 | low)];
        (0u8..6, operator, value).prop_map(|(arg, operator, value)| Condition { arg, operator, value })
    }

    fn clauses() -> impl Strategy<Value = Rule> {
        let clause =
            (proptest::collection::vec(condition(), 0..7), action()).prop_map(|(all, then)| Clause { all, then });
        (proptest::collection::vec(clause, 1..4), action())
            .prop_map(|(clauses, otherwise)| Rule::First { clauses, otherwise })
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let test = prop_oneof![any::<u32>().prop_map(Test::AnyBit), Just(Test::OneOf(&[0, 8, 40, u32::MAX]))];
        prop_oneof![
            4 => action().prop_map(Rule::Do),
            1 => (0u8..6, test, action(), action())
                .prop_map(|(arg, test, then, otherwise)| Rule::If { arg, test, then, otherwise }),
            1 => clauses(),
        ]
    }

    proptest! {
        #[test]
        fn a_program_does_what_its_policy_says(
            rules in proptest::collection::btree_map(0u16..500, rule(), 0..100),
            otherwise in action(),
            args in any::<[u64; 6]>(),
            small in 0u64..45,
        ) {
            let mut policy = Policy { rules: Rules::default(), otherwise };
            rules.into_iter().for_each(|(number, rule)| policy.rules.set(number, rule));
            let program = compile(&policy);
            prop_assert!(program.len() <= 4096);
            for nr in (0..600).chain([u32::from(u16::MAX), 0x1_0000, 0x3fff_ffff]) {
                for args in [args, [small; 6], [7 << 32 | small; 6]] {
                    prop_assert_eq!(run(&program, NATIVE, nr, args), expected(&policy, nr, args), "call {}", nr);
                }
            }
            prop_assert_eq!(run(&program, 0x4000_0003, 20, args), libc::SECCOMP_RET_KILL_PROCESS);
            #[cfg(target_arch = "x86_64")]
            for nr in [X32_BIT, X32_BIT | 1, u32::MAX] {
                prop_assert_eq!(run(&program, NATIVE, nr, args), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
            }
        }
    }
}
