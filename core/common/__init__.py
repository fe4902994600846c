"""What every room needs: errors, names of types, files, the terminal, progress. No TensorFlow."""
