//! Every seed of every target, whole, cut short and bent: what needs no fuzzer to be found is found on every machine.

use dmrpc_fuzz::TARGETS;

#[test]
fn seeds_are_there() {
    for target in TARGETS {
        assert!(!(target.seeds)().is_empty(), "{} starts from nothing", target.name);
    }
}

#[test]
fn cut_short() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            for end in 0..=seed.len() {
                (target.run)(&seed[..end]);
            }
        }
    }
}

/// Each byte becomes each of the values at which lengths, counts and numbers of operations turn.
#[test]
fn bent_at_every_byte() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            for at in 0..seed.len() {
                for value in [0, 1, 2, 3, 4, 17, 64, 0x7f, 0x80, 0xff, seed[at] ^ 1, seed[at] ^ 0x80] {
                    let mut bent = seed.clone();
                    bent[at] = value;
                    (target.run)(&bent);
                }
            }
        }
    }
}

#[test]
fn with_a_tail() {
    for target in TARGETS {
        for mut seed in (target.seeds)() {
            seed.extend_from_slice(&[0; 9]);
            (target.run)(&seed);
        }
    }
}
