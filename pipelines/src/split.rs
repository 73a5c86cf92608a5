//! Cuts a file at keyframes into MPEG-TS segments, without touching a picture.
