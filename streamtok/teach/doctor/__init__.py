"""The doctor: it asks any server for streams and says what is wrong with them, rule by rule."""
