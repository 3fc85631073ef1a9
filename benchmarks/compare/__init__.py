"""The comparison: moderntensor beside what else one could use, side by side in one run.

python -m benchmarks.compare            # everything, about twenty minutes
python -m benchmarks.compare --quick    # everything in small, within two minutes
python -m benchmarks.compare headers streams
"""
