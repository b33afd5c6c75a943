//! Lists the CUDA devices that this process can use, or says why there are none.

fn main() {
    match cascade_gpu::driver::probe() {
        Ok(driver) => println!("{driver:#?}"),
        Err(absence) => println!("{absence}"),
    }
}
