//! The bare pass-through on the C library's allocator.

fn main() -> std::process::ExitCode {
    tollgate_load::bare::main()
}
