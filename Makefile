# rankdet: `make help` lists what there is. Everything runs from the repository's root.

PYTHON   ?= python3
VENV     ?= .venv
PROTOCOL ?= mini
DATA     ?=
JOBS     ?= 2
GPUS     ?= 0
NODES    ?= 1
RDZV     ?=
LAUNCHER ?= queue
SLURM    ?=
ARGS     ?=
PAPER    ?= ap-loss
DETECTOR ?= retinanet
RUN      ?=
RESULTS  ?=
SERVER   ?=
NAME     ?=
TABLE    ?=
FIGURE   ?=
ROW      ?=
SEED     ?= 0
PORT     ?= 6006
SEARCH   ?= retinanet-voc
SEARCHES ?= retinanet-voc retinanet-voc-random

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where trainings run; what plan, status and tensorboard are about: one table or figure, or all of PAPER.
WHERE  := --jobs $(JOBS) --gpus $(GPUS) --nodes $(NODES) --rendezvous "$(RDZV)" --launcher $(LAUNCHER) --slurm "$(SLURM)"
CHOSEN = $(addprefix table-,$(TABLE)) $(addprefix figure-,$(FIGURE)) --paper $(PAPER) --protocol $(PROTOCOL) --data "$(DATA)"
PY     := NO_ALBUMENTATIONS_UPDATE=1 $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help setup reproduce-all reproduce-all-losses plan reproduce-theory data-voc data-coco check-data profile-loading benchmark submission enter-result profile-loss search-pap compare-search-pap search-toy sweep tune report publish status tensorboard test test-full test-full-rest stress lint format clean

help: ## show this list
	@echo "make TARGET [VARIABLE=value ...]"
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):[^#]*## /\1\t/; s/%/N/' | awk -F'\t' '{printf "  %-20s %s\n", $$1, $$2}'
	@echo "  reproduce-alrp-table-N, -dr-, -pap-, and -harmonic- with -figure-N: tables and figures of the other papers"
	@echo "  reproduce-harmonic-comparison: the harmonic losses beside cross entropy and smooth L1, a table of our own"
	@echo "variables: PROTOCOL=mini|mini_long|paper  JOBS=2 (trainings at once)"
	@echo "           DATA=voc0712|...|path/to/a/VOC-or-COCO/folder (else each row has its own data set)"
	@echo "           GPUS=0 (GPUs per training)  NODES=2 RDZV=HOST:PORT (two machines per training)  LAUNCHER=slurm SLURM=\"partition=gpu ...\""
	@echo "           PAPER=ap-loss|alrp|dr-loss|harmonic|pap  TABLE=2  FIGURE=8a  RUN=runs/.../seed0  DETECTOR=retinanet  SEARCH=...  SEED=0"
	@echo "           ARGS=\"loss.delta=0.5 ...\"  VENV=.venv  PYTHON=python3"

setup: $(STAMP) ## make the virtual environment and install what requirements.txt pins

# The stamp is written last: a broken installation is done again, a finished one only when the pins change.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rankdet needs Python 3.11 or newer: set PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# $(call reproduce,script,manifest,folder of experiments/)
reproduce = @$(PY) scripts/$(1).py $(2) --paper $(3) --protocol $(PROTOCOL) --data "$(DATA)" $(WHERE) $(ARGS)

reproduce-table-%: $(STAMP) ## train and test what is missing for table N of PAPER, then print and save the table
	$(call reproduce,reproduce,table-$*,$(PAPER))

reproduce-figure-%: $(STAMP) ## train what is missing for figure N of PAPER, then print, plot and save it
	$(call reproduce,figure,figure-$*,$(PAPER))

# The same for the other papers, by names of their own: reproduce-alrp-table-2, reproduce-dr-figure-1, ...
define of_paper
reproduce-$(1)-table-%: $(STAMP)
	$$(call reproduce,reproduce,table-$$*,$(2))
reproduce-$(1)-figure-%: $(STAMP)
	$$(call reproduce,figure,figure-$$*,$(2))
endef
$(eval $(call of_paper,alrp,alrp))
$(eval $(call of_paper,dr,dr-loss))
$(eval $(call of_paper,harmonic,harmonic))
$(eval $(call of_paper,pap,pap))

# Tables of our own, which no paper prints.
reproduce-%-comparison: $(STAMP)
	$(call reproduce,reproduce,comparison,$*)

reproduce-all-losses: reproduce-all-losses-comparison ## every loss on RetinaNet, alike in all else: accuracy and cost

reproduce-all: $(STAMP) ## all tables of PAPER, then all figures; may be stopped at any time and goes on where it was
	@$(PY) scripts/all.py $(CHOSEN) $(WHERE) $(ARGS)

plan: $(STAMP) ## print what TABLE=2, FIGURE=8a or all of PAPER still needs trained, and what that takes; starts nothing
	@$(PY) scripts/plan.py $(CHOSEN) $(WHERE) $(ARGS)

reproduce-theory: $(STAMP) ## check the papers' formulas and theorems: "holds", or where not (ARGS="AP-P2 ...": only those)
	@$(PY) scripts/theory.py $(ARGS)

profile-loss: $(STAMP) ## time and memory of every loss beside focal loss (ARGS="--device cuda ...")
	@$(PY) scripts/profile_loss.py $(ARGS)

data-voc: $(STAMP) ## download Pascal VOC 2007 and 2012 to data/VOC (ARGS="--from DIR": no download; ARGS=--help: more)
	@$(PY) scripts/prepare_voc.py $(ARGS)

data-coco: $(STAMP) ## download COCO 2017 to data/coco (ARGS="--from DIR": no download; ARGS=--help: more)
	@$(PY) scripts/prepare_coco.py $(ARGS)

check-data: $(STAMP) ## read all of DATA, decode every image, list what is wrong, draw samples and histograms
	@$(PY) scripts/check_data.py --data "$(or $(DATA),shapes)" $(ARGS)

profile-loading: $(STAMP) ## images a second and core, decoded and augmented, beside torchvision (DATA=photographs)
	@$(PY) scripts/profile_loading.py --data "$(or $(DATA),shapes)" $(ARGS)

benchmark: $(STAMP) ## a training step, time and memory, beside torchvision's (ARGS="--quick" or "--device cuda ...")
	@$(PY) scripts/benchmark.py --data "$(or $(DATA),shapes)" $(ARGS)

submission: $(STAMP) ## the archive for SERVER=voc|coco from RUN or RESULTS, named NAME (ARGS="data=voc07pp12 ...")
	@$(PY) scripts/submission.py --server "$(SERVER)" --name "$(NAME)" --run "$(RUN)" --results "$(RESULTS)" $(ARGS)

# Of what the command line sets, all but these are columns of the table with their numbers. Make puts a backslash before
# the blanks of a value.
SPACE   := $(subst ,, )
OTHERS   = PAPER TABLE ROW SEED DATA ARGS VENV PYTHON PROTOCOL JOBS GPUS NODES RDZV LAUNCHER SLURM
NUMBERS  = $(filter-out $(addsuffix =%,$(OTHERS)),$(subst \$(SPACE),_,$(MAKEOVERRIDES)))

enter-result: $(STAMP) ## store what a server returned for ROW of TABLE and SEED, in percent (AP50=83.1 or AP=37.4 AP50=...)
	@$(PY) scripts/enter_result.py "table-$(TABLE)" "$(ROW)" --seed "$(SEED)" --paper $(PAPER) --data "$(DATA)" --overrides "$(ARGS)" $(NUMBERS)

sweep: $(STAMP) ## test the finished run RUN under several settings (ARGS="evaluation.score_threshold=0.0,0.01,0.05")
	@$(PY) scripts/sweep.py "run=$(RUN)" $(ARGS)

tune: $(STAMP) ## search lr and box weight per loss of DETECTOR on the validation split, by the recorded grid
	@$(PY) scripts/tune.py --detector $(DETECTOR) --protocol $(PROTOCOL) --data "$(or $(DATA),shapes)" $(WHERE) $(ARGS)

search-pap: $(STAMP) ## search Parameterized AP loss's functions as SEARCH of experiments/searches.yaml says
	@$(PY) -m rankdet.search $(SEARCH) --protocol $(PROTOCOL) --data "$(DATA)" --seed $(SEED) $(WHERE) $(ARGS)

compare-search-pap: $(STAMP) ## train by what SEARCHES found and by the identity line, test all on images no search saw
	@$(PY) scripts/compare_search.py $(SEARCHES) --protocol $(PROTOCOL) --data "$(DATA)" --seed $(SEED) $(WHERE) $(ARGS)

search-toy: $(STAMP) ## the same search on synthetic anchors: functions fixed, shared and separate; CPU minutes
	@$(PY) scripts/search_toy.py $(ARGS)

report: $(STAMP) ## one HTML page about the finished run RUN (ARGS="split=val data.root=..."): errors, scores, images
	@$(PY) scripts/report.py "run=$(RUN)" $(ARGS)

publish: $(STAMP) ## copy finished runs' records to experiments/ and regenerate the committed tables
	@$(PY) scripts/publish.py

status: $(STAMP) ## which trainings of TABLE=2, FIGURE=8a or all of PAPER are done, running, failed, waiting, and for how long
	@$(PY) scripts/status.py $(CHOSEN) --jobs $(JOBS) $(ARGS)

tensorboard: $(STAMP) ## watch the runs of TABLE=2, FIGURE=8a or all of PAPER at http://localhost:PORT, named by row
	@folder=$$($(PY) scripts/board.py $(CHOSEN) $(ARGS)) && $(BIN)/tensorboard --logdir "$$folder" --port $(PORT)

test: $(STAMP) ## the tests a newcomer runs (up to 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not full and not stress"

test-full: test test-full-rest ## all but the stress tests (up to 40 minutes)

test-full-rest: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "full and not stress"

stress: $(STAMP) ## the long tests
	$(BIN)/python -m pytest -m stress

lint: $(STAMP) ## ruff's checks and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## let ruff mend formatting and imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and the drawn data; runs/ stays
	rm -rf $(VENV) data/shapes-* data/shapes_*-*
