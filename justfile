# What CI runs, in its order. `just check` never writes; `just fix` does.

check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty
