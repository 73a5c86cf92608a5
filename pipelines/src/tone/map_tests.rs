use super::*;

fn wide(coding: Coding) -> Wide {
    Wide { coding, gamut: light::BT2020, red_blue: (0.2627, 0.0593), full_range: false }
}

fn mapped(map: &Map, [y, b, r]: [u16; 3]) -> [u8; 3] {
    let mut lines = [(); 2].map(|()| Line::default());
    for line in &mut lines {
        map.line(&[[y; CHUNK]], [&[[b; CHUNK / 2]], &[[r; CHUNK / 2]]], line);
    }
    let (mut out, mut out_b, mut out_r) = ([0], [0], [0]);
    luma(&lines[0], &mut out);
    chroma(&lines, [&mut out_b, &mut out_r]);
    [out[0], out_b[0], out_r[0]]
}

/// Y'CbCr in ten bits of a signal in BT.2020.
fn coded([red, green, blue]: [f64; 3]) -> [u16; 3] {
    let y = 0.2627 * red + 0.678 * green + 0.0593 * blue;
    let (b, r) = ((blue - y) / 1.8814, (red - y) / 1.4746);
    [64.0 + 876.0 * y, 512.0 + 896.0 * b, 512.0 + 896.0 * r].map(|code| code.round() as u16)
}

/// The same in double precision, not rounded.
fn exact(coding: Coding, [y, b, r]: [u16; 3]) -> [f64; 3] {
    let (y, b, r) = ((f64::from(y) - 64.0) / 876.0, f64::from(b) - 512.0, f64::from(r) - 512.0);
    let (red, blue) = (y + 1.4746 * r / 896.0, y + 1.8814 * b / 896.0);
    let signal = [red, (y - 0.2627 * red - 0.0593 * blue) / 0.678, blue];
    let nits = match coding {
        Coding::Pq => signal.map(light::pq_to_nits),
        Coding::Sdr => signal.map(light::sdr_to_nits),
        Coding::Hlg => {
            let scene = signal.map(light::hlg_to_scene);
            let gain = light::hlg_ootf(0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2]);
            scene.map(|light| light * gain)
        }
    };
    let strongest = nits.into_iter().fold(1e-9, f64::max);
    let gain = match coding {
        Coding::Pq | Coding::Hlg => light::eetf(strongest, light::PEAK) / strongest,
        Coding::Sdr => 1.0,
    };
    let [red, green, blue] =
        light::convert(&light::BT2020, nits.map(|nits| nits * gain)).map(light::nits_to_sdr);
    let y = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    [16.0 + 219.0 * y, 128.0 + 224.0 * (blue - y) / 1.8556, 128.0 + 224.0 * (red - y) / 1.5748]
}

#[test]
fn grey_and_white_have_the_levels_that_viewers_expect() {
    let pq = Map::new(&wide(Coding::Pq));
    let grey = |nits: f64| mapped(&pq, coded([light::nits_to_pq(nits); 3]));
    assert_eq!(grey(0.0), [16, 128, 128]);
    // 18 % grey: 26 of 203 nits, 0.425 of the signal.
    assert_eq!(grey(26.0), [109, 128, 128]);
    assert_eq!(grey(203.0), [214, 128, 128]);
    assert_eq!(grey(1000.0), [235, 128, 128]);
    let hlg = Map::new(&wide(Coding::Hlg));
    assert_eq!(mapped(&hlg, coded([0.75; 3])), [214, 128, 128]);
    let sdr = Map::new(&wide(Coding::Sdr));
    assert_eq!(mapped(&sdr, coded([0.25; 3])), [71, 128, 128]);
    assert_eq!(mapped(&sdr, coded([1.0; 3])), [235, 128, 128]);
    let full = Map::new(&Wide { full_range: true, ..wide(Coding::Sdr) });
    assert_eq!(mapped(&full, [0, 512, 512]), [16, 128, 128]);
    assert_eq!(mapped(&full, [1023, 512, 512]), [235, 128, 128]);
}

#[test]
fn primaries_of_bt709_come_out_as_themselves() {
    // BT.709's red, green and blue of 80 nits, in light of BT.2020 (BT.2087-0, 3).
    let to_2020 =
        [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]];
    let map = Map::new(&wide(Coding::Pq));
    let level = light::nits_to_sdr(80.0);
    // BT.709-6: what a whole red, green and blue are.
    for (at, whole) in [(0, [63.0, 102.0, 240.0]), (1, [173.0, 42.0, 26.0]), (2, [32.0, 240.0, 118.0])] {
        let mut bt709 = [0.0; 3];
        bt709[at] = 80.0;
        let got = mapped(&map, coded(light::convert(&to_2020, bt709).map(light::nits_to_pq)));
        for (plane, (got, whole)) in got.into_iter().zip(whole).enumerate() {
            let zero = if plane == 0 { 16.0 } else { 128.0 };
            let want = zero + (whole - zero) * level;
            // Ten bits of PQ do not resolve a twentieth of a nit in another primary, and that is five codes.
            assert!((f64::from(got) - want).abs() < 6.0, "primary {at}: {got} is not {want}");
        }
    }
}

#[test]
fn the_tables_are_the_curves() {
    for coding in [Coding::Pq, Coding::Hlg, Coding::Sdr] {
        let map = Map::new(&wide(coding));
        let (mut worst, mut squares, mut count) = (0.0_f64, 0.0, 0.0);
        let levels: Vec<f64> = (0..=20).map(|level| f64::from(level) / 20.0).collect();
        for red in &levels {
            for green in &levels {
                for blue in &levels {
                    let codes = coded([*red, *green, *blue]);
                    for (got, want) in mapped(&map, codes).into_iter().zip(exact(coding, codes)) {
                        let off = (f64::from(got) - want).abs();
                        worst = worst.max(off);
                        squares += off * off;
                        count += 1.0;
                    }
                }
            }
        }
        let mean = f64::sqrt(squares / count);
        // Rounding to whole codes alone gives 0.29 in the mean. The worst are primaries near zero.
        assert!(mean < 0.35 && worst < 4.5, "{coding:?}: {mean} in the mean, {worst} at worst");
    }
}
