//! Launcher. 
fn main() {}
