# Commands of daily work: `just` lists them. CONTRIBUTING.md says more.

_:
    @just --list

# Everything that must pass before a change is taken
ci:
    .ci/run

# Tests that need no engine, in seconds
quick:
    cargo test --locked --lib --bins --test cli --test compose --test docs

# All tests; an argument chooses some, as in `just test --test engine rollout`
test *args:
    cargo test --locked {{ args }}

# Format, lints and documentation
lint:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Write anew what is generated: snapshots, schemas, the reference of commands
update:
    INSTA_UPDATE=always SAMEPORT_UPDATE_SCHEMA=1 SAMEPORT_UPDATE_DOCS=1 cargo test --locked --lib --bins --test cli --test compose --test schema --test docs

# Compile the BPF programs
bpf:
    src/kernel/bpf/build

# Read the book in a browser
book:
    mdbook serve docs --open

# What takes longer, before a release; arguments are its steps
full *steps:
    .ci/full {{ steps }}
